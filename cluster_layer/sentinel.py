"""Connections to whatever server Redis Sentinel calls the master at that moment.

redis-py's own Sentinel client keeps a pool per Sentinel, bound to one event loop, and asks them one
after the other: a Sentinel on a dead host would use up the deadline of every reconnect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from redis import connection as blocking
from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from cluster_layer.endpoints import Endpoint
from cluster_layer.loops import background_loop

if TYPE_CHECKING:
    _Base = Connection
    _BlockingBase = blocking.Connection
else:
    _Base = _BlockingBase = object


class _FollowsMaster(_Base):
    """Mixin: every connect() asks the Sentinels and refuses a server that is no master."""

    def __init__(
        self, *, sentinels: tuple[Endpoint, ...], master_name: str, **options: Any
    ) -> None:
        super().__init__(**options)
        self._sentinels = sentinels
        self._master_name = master_name

    async def connect(self) -> None:
        """Connect to the present master; redis-py's ConnectionError if none is found."""
        if self.is_connected:
            return
        timeout_s = self.socket_connect_timeout or 1.0
        self.host, self.port = await _find_master(self._sentinels, self._master_name, timeout_s)
        await super().connect()  # type: ignore[no-untyped-call]  # redis-py annotates in part
        try:
            await self._require_master()
        except BaseException:
            await self.disconnect(nowait=True)
            raise

    async def _require_master(self) -> None:
        # Sentinel may still name the old master while it is being demoted.
        await self.send_command("ROLE")
        try:
            role = await self.read_response()
        except ResponseError:
            return  # This user may not ask; a write to a replica is refused with READONLY.
        if role[0] != b"master":
            raise RedisConnectionError(f"{self.host}:{self.port} is no master (any more)")


class MasterConnection(_FollowsMaster, Connection):
    """A plain connection to the master."""


class MasterTLSConnection(_FollowsMaster, SSLConnection):
    """A TLS connection to the master."""


class _FollowsMasterBlocking(_BlockingBase):
    """The same without asyncio; that it is a master is seen when its incarnation is asked for."""

    def __init__(
        self, *, sentinels: tuple[Endpoint, ...], master_name: str, **options: Any
    ) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._sentinels = sentinels
        self._master_name = master_name

    def connect(self) -> None:
        """Connect to the present master; redis-py's ConnectionError if none is found."""
        timeout_s = self.socket_connect_timeout or 1.0
        finding = _find_master(self._sentinels, self._master_name, timeout_s)
        self.host, self.port = background_loop().wait_for(finding)
        super().connect()  # type: ignore[no-untyped-call]


class BlockingMasterConnection(_FollowsMasterBlocking, blocking.Connection):
    """A plain connection to the master, without asyncio."""


class BlockingMasterTLSConnection(_FollowsMasterBlocking, blocking.SSLConnection):
    """A TLS connection to the master, without asyncio."""


async def _find_master(
    sentinels: Sequence[Endpoint], master_name: str, timeout_s: float
) -> tuple[str, int]:
    """The first answer of any Sentinel; all are asked at once."""
    asking = [_ask(sentinel, master_name, timeout_s) for sentinel in sentinels]
    tasks = [asyncio.create_task(work) for work in asking]
    failures = []
    try:
        for answer in asyncio.as_completed(tasks):
            try:
                return await answer
            except (RedisError, OSError, TimeoutError) as error:
                failures.append(f"{type(error).__name__}: {error}")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    raise RedisConnectionError(
        f"no Sentinel names a master {master_name!r} ({'; '.join(failures)})"
    )


async def _ask(sentinel: Endpoint, master_name: str, timeout_s: float) -> tuple[str, int]:
    connection = sentinel.new_connection(timeout_s)
    try:
        async with asyncio.timeout(timeout_s):
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", master_name)
            answer = await connection.read_response()
    finally:
        await connection.disconnect(nowait=True)
    if not isinstance(answer, list) or len(answer) != 2:
        raise RedisConnectionError(f"{sentinel.id} knows no such master")
    return answer[0].decode(), int(answer[1])
