"""In a process: connections go to a proxy instead of the address that the layer knows.

All processes share one topology, and yet each link between a process and a shard can fail by
itself. TLS still checks the name that the layer asked for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

Address: TypeAlias = tuple[str, int]


def write(path: Path, targets: Mapping[Address, Address]) -> None:
    """Say where connections go; processes that read the file follow at their next connection."""
    named = {f"{host}:{port}": list(target) for (host, port), target in targets.items()}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(named), encoding="utf-8")
    fresh.replace(path)


class Redirect:
    """Reads such a file anew whenever it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at = (0, 0)
        self._targets: dict[str, Address] = {}

    def target(self, host: str, port: int) -> Address:
        """Where a connection to this address goes; itself, if nothing is said about it."""
        state = self._path.stat()
        read_at = (state.st_mtime_ns, state.st_ino)
        if read_at != self._read_at:
            targets = json.loads(self._path.read_text("utf-8"))
            self._targets = {name: (where[0], where[1]) for name, where in targets.items()}
            self._read_at = read_at
        return self._targets.get(f"{host}:{port}", (host, port))


class _Policy(asyncio.DefaultEventLoopPolicy):
    """Makes event loops whose connections are redirected."""

    def __init__(self, redirect: Redirect) -> None:
        super().__init__()
        self._redirect = redirect

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _Loop(self._redirect)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, redirect: Redirect) -> None:
        super().__init__()
        self._redirect = redirect

    async def create_connection(  # type: ignore[override]
        self, factory: Any, host: str | None = None, port: int | None = None, **options: Any
    ) -> Any:
        if host is not None and port is not None:
            if options.get("ssl") and options.get("server_hostname") is None:
                options["server_hostname"] = host
            target = self._redirect.target(host, port)
            return await super().create_connection(factory, *target, **options)
        return await super().create_connection(factory, host, port, **options)  # type: ignore[arg-type]


def redirect_connections(path: Path) -> None:
    """From now on, for every event loop that this process makes."""
    asyncio.set_event_loop_policy(_Policy(Redirect(path)))
