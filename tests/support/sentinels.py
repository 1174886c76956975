"""A real Redis Sentinel over real servers."""

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from cluster_layer.embedded import RedisServer, find_binary, free_port
from cluster_layer.processes import ChildProcess
from tests.support.waiting import eventually

MASTER_NAME = "mymaster"
PASSWORD = "sentinel-password"


class SentinelServer:
    """One Sentinel that watches `master`; its own password is PASSWORD, its quorum 1."""

    def __init__(self, master: RedisServer, password: str | None = None) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="sentinel-"))
        self.port = free_port()
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self._directory}",
            f"requirepass {PASSWORD}",
            f"sentinel monitor {MASTER_NAME} 127.0.0.1 {master.port} 1",
            f"sentinel down-after-milliseconds {MASTER_NAME} 1000",
            f"sentinel failover-timeout {MASTER_NAME} 3000",
        ]
        if password is not None:
            lines.append(f"sentinel auth-pass {MASTER_NAME} {password}")
        configuration = self._directory / "sentinel.conf"
        configuration.write_text("\n".join(lines) + "\n")
        self._process = ChildProcess(
            [find_binary(), str(configuration), "--sentinel"],
            output=self._directory / "log",
            cwd=self._directory,
        )
        self._client: Any = redis.Redis(port=self.port, password=PASSWORD)
        eventually(lambda: self._master() is not None, what="the Sentinel answers")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()
        self._process.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def wait_for_replica(self) -> None:
        """Return when the Sentinel could promote one."""

        def ready() -> bool:
            replicas = self._client.execute_command("SENTINEL", "REPLICAS", MASTER_NAME)
            # redis-py gives dictionaries, or flat lists of bytes, depending on its version.
            return any("ok" in repr(replica) and "slave" in repr(replica) for replica in replicas)

        eventually(ready, what="the Sentinel knows the replica")

    def fail_over(self) -> None:
        """Promote the replica; returns when the Sentinel names another master."""
        before = self._master()

        def asked() -> bool:
            try:
                return bool(self._client.execute_command("SENTINEL", "FAILOVER", MASTER_NAME))
            except redis.ResponseError:  # Not yet a good replica.
                return False

        eventually(asked, what="the Sentinel begins the failover")
        eventually(lambda: self._master() != before, what="the replica is promoted")

    def _master(self) -> object:
        try:
            return self._client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)
        except redis.ConnectionError:
            return None
