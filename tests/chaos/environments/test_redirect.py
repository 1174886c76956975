"""Connections that go elsewhere than the layer thinks."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from chaos.environments.redirect import Redirect, write
from cluster_layer.embedded import RedisServer, free_port
from tests.support.proxy import TcpProxy

PROGRAM = """\
import asyncio, json, sys
from pathlib import Path
from chaos.environments.redirect import redirect_connections
from cluster_layer import ClusterChannelLayer
redirect_connections(Path(sys.argv[1]))

async def main():
    layer = ClusterChannelLayer(hosts=[sys.argv[2]])
    await layer.send("queue", {"type": "t"})
    print(json.dumps(await layer.receive("queue")))
    await layer.close()

asyncio.run(main())
"""


def test_what_is_not_named_goes_where_it_wants(tmp_path: Path) -> None:
    """And a file that was replaced counts at once."""
    path = tmp_path / "redirect"
    write(path, {("a", 1): ("b", 2)})
    redirect = Redirect(path)
    assert redirect.target("a", 1) == ("b", 2)
    assert redirect.target("a", 2) == ("a", 2)
    write(path, {("a", 2): ("c", 3)})
    assert [redirect.target("a", port) for port in (1, 2)] == [("a", 1), ("c", 3)]


async def test_a_layer_is_redirected(tmp_path: Path, redis_server: RedisServer) -> None:
    """To a shard that it believes to be elsewhere, by way of the proxy."""
    nowhere = free_port()
    path = tmp_path / "redirect"
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        write(path, {("127.0.0.1", nowhere): ("127.0.0.1", proxy.port)})
        command = [sys.executable, "-c", PROGRAM, str(path), f"redis://127.0.0.1:{nowhere}"]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=False
        )
        assert json.loads(done.stdout) == {"type": "t"}, done.stderr
        assert proxy.connections_accepted > 0
