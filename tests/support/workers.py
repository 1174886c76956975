"""Other OS processes with a layer of their own, which do what a test tells them.

Requests and answers are lines of JSON on the worker's standard input and output; requests are
worked off concurrently. A worker ends when its input does, so none survives the test's process.
"""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.layers import DEADLINE_S, Message, Outcome, numbered, outcome_of

ROOT = Path(__file__).parents[2]


class RemoteError(Exception):
    """What a worker's call raised: the name of its class, and `definite` if it has one."""

    def __init__(self, kind: str, definite: bool | None, text: str) -> None:
        super().__init__(kind, definite, text)
        self.kind = kind
        self.definite = definite


class Worker:
    """One other process; use as an asynchronous context manager."""

    def __init__(
        self,
        config: dict[str, Any],
        *,
        backend: str = "cluster_layer.ClusterChannelLayer",
        uvloop: bool = False,
        clock_skew_s: float = 0.0,
    ) -> None:
        self._options = {
            "config": config,
            "backend": backend,
            "uvloop": uvloop,
            "clock_skew_s": clock_skew_s,
        }
        self._process: asyncio.subprocess.Process | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._last_id = 0
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.support.workers",
            json.dumps(self._options),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**26,
        )
        self._listener = asyncio.create_task(self._listen(self._process))
        await self.call("ready")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        assert self._listener is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
            raise
        finally:
            await self._listener

    async def call(self, verb: str, *args: Any) -> Any:
        """Let the worker do one of `_Verbs`; RemoteError if that raises."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._last_id += 1
        request = {"id": self._last_id, "verb": verb, "args": args}
        answer = asyncio.get_running_loop().create_future()
        self._answers[self._last_id] = answer
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return await answer

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """SIGSTOP: it is there, and does nothing until `go_on()`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            answer = json.loads(line)
            future = self._answers.pop(answer["id"])
            if future.cancelled():
                continue
            if "error" in answer:
                future.set_exception(RemoteError(*answer["error"]))
            else:
                future.set_result(answer["result"])
        for future in self._answers.values():
            if not future.done():
                future.set_exception(RemoteError("ProcessEnded", None, "the worker has ended"))


@asynccontextmanager
async def workers(count: int, config: dict[str, Any]) -> AsyncIterator[list[Worker]]:
    """Several workers with the same configuration."""
    made = [Worker(config) for _ in range(count)]
    try:
        await asyncio.gather(*(worker.__aenter__() for worker in made))
        yield made
    finally:
        await asyncio.gather(*(worker.__aexit__(None, None, None) for worker in made))


@asynccontextmanager
async def member(config: dict[str, Any]) -> AsyncIterator[Worker]:
    """A worker with a member in a group, so that it has duties; it may be stopped."""
    async with Worker(config) as worker:
        try:
            await worker.call("join", "group")
            yield worker
        finally:
            worker.go_on()


class _Verbs:
    """What a worker can do."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    async def ready(self) -> bool:
        return True

    async def layer(self, method: str, *args: Any) -> Any:
        """Call a method of the layer."""
        result = getattr(self._layer, method)(*args)
        return await result if asyncio.iscoroutine(result) else result

    async def receive(self, channel: str, timeout_s: float = DEADLINE_S) -> Message:
        async with asyncio.timeout(timeout_s):
            message: Message = await self._layer.receive(channel)
            return message

    async def collect(self, channel: str, quiet_s: float) -> list[Message]:
        """Everything that comes until nothing does for `quiet_s`."""
        messages = []
        while True:
            try:
                messages.append(await self.receive(channel, quiet_s))
            except TimeoutError:
                return messages

    async def send_numbers(self, channel: str, first: int, count: int) -> list[Outcome]:
        """One after the other; the outcome of each."""
        numbers = range(first, first + count)
        return [await outcome_of(self._layer.send(channel, numbered(n))) for n in numbers]

    async def group_send_numbers(self, group: str, first: int, count: int) -> list[Outcome]:
        numbers = range(first, first + count)
        return [await outcome_of(self._layer.group_send(group, numbered(n))) for n in numbers]

    async def names(self, question: str, group: str) -> list[str]:
        """The answer of the layer to a question whose answer is a set."""
        return sorted(await getattr(self._layer, question)(group))

    async def join(self, group: str) -> str:
        """A new channel of this worker that is a member of the group."""
        channel: str = await self._layer.new_channel()
        await self._layer.group_add(group, channel)
        return channel


async def _answer(verbs: _Verbs, request: dict[str, Any]) -> None:
    answer: dict[str, Any] = {"id": request["id"]}
    try:
        answer["result"] = await getattr(verbs, request["verb"])(*request["args"])
    except Exception as error:  # noqa: BLE001 -- whatever it is, the test wants to see it
        definite = getattr(error, "definite", None)
        answer["error"] = [type(error).__name__, definite, str(error)]
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def _work(backend: str, config: dict[str, Any]) -> None:
    module, _, name = backend.rpartition(".")
    layer = getattr(import_module(module), name)(**config)
    verbs = _Verbs(layer)
    lines = asyncio.StreamReader(limit=2**26)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    tasks = set()
    while line := await lines.readline():
        task = asyncio.create_task(_answer(verbs, json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # channels_redis.pubsub has no other end than this.
    end = next(name for name in ("close", "close_pools", "flush") if hasattr(layer, name))
    await getattr(layer, end)()


def _skew_clock(seconds: float) -> None:
    """Let this process believe that it is another time, like a host with a wrong clock."""
    true_time: Callable[[], float] = time.time
    true_time_ns: Callable[[], int] = time.time_ns
    time.time = lambda: true_time() + seconds
    time.time_ns = lambda: true_time_ns() + int(seconds * 1e9)


def _main() -> None:
    options = json.loads(sys.argv[1])
    if options["clock_skew_s"]:
        _skew_clock(options["clock_skew_s"])
    if options["uvloop"]:
        import uvloop

        uvloop.run(_work(options["backend"], options["config"]))
    else:
        asyncio.run(_work(options["backend"], options["config"]))


if __name__ == "__main__":
    _main()
