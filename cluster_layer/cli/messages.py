"""The verbs that send and receive, for debugging from a shell."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from cluster_layer import ClusterChannelLayer
from cluster_layer.cli import exits, options, probing
from cluster_layer.cli.message_json import message_from, text_of
from cluster_layer.cli.options import StoreOptions
from cluster_layer.cli.session import run
from cluster_layer.cli.site import current_site, require_not_given
from cluster_layer.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """The CONFIG of a layer that meets the others; its repr shows no secret."""

    config: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, store: StoreOptions, prefix: str, keys: Sequence[str]) -> LayerOptions:
        """What the options say."""
        return cls(
            {
                "topology": {"url": store.url, **store.more},
                "addresses": dict(store.addresses),
                "prefix": prefix,
                "symmetric_encryption_keys": list(keys),
            }
        )

    @asynccontextmanager
    async def opened(self, **more: Any) -> AsyncIterator[ClusterChannelLayer]:
        """A layer, closed at the end; what is None is left as it is. ConfigError."""
        wanted = {key: value for key, value in more.items() if value is not None}
        layer = ClusterChannelLayer(**{**self.config, **wanted})
        try:
            yield layer
        finally:
            await layer.close()


def layer_options(command: F) -> F:
    """Store, prefix and keys; the command gets them as `layer`, a LayerOptions."""

    @options.store_parameters
    @click.option(
        "--prefix", default="asgi", show_default=True, help="The layer's prefix, as in its CONFIG."
    )
    @click.option(
        "--keys-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="CLUSTER_LAYER_KEYS_FILE",
        show_envvar=True,
        help="Encryption keys, one a line, as in CONFIG symmetric_encryption_keys: the first "
        "encrypts, all decrypt.",
    )
    @functools.wraps(command)
    def with_layer(
        *arguments: Any,
        store: str | None,
        more: Path | None,
        addresses: Path | None,
        prefix: str,
        keys_file: Path | None,
        **others: Any,
    ) -> Any:
        site = current_site()
        if site is not None:
            require_not_given(site, "store", "more", "addresses", "prefix", "keys_file")
            found = LayerOptions(site.layer_config())
        else:
            place = options.store_of_options(store, more, addresses)
            found = LayerOptions.of(place, prefix, _keys_in(keys_file))
        return command(*arguments, layer=found, **others)

    return with_layer  # type: ignore[return-value]  # the options are click's business


def _keys_in(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--keys-file {path}: not readable as text") from error
    keys = tuple(line for line in lines if line)
    if not keys:
        raise ConfigError(f"--keys-file {path}: has no key; write one a line")
    return keys


@click.command("send")
@layer_options
@click.option("--group", "to_group", is_flag=True, help="NAME is a group: send to its members.")
@click.option(
    "--expiry",
    type=click.FloatRange(0.001),
    show_default="60",
    metavar="SECONDS",
    help="How long the message may wait.",
)
@click.option(
    "--capacity",
    type=click.IntRange(1),
    show_default="100",
    help="Refuse when so many messages wait in the channel.",
)
@options.as_json
@click.argument("name")
@click.argument("message", metavar="JSON")
def send(
    layer: LayerOptions,
    to_group: bool,
    expiry: float | None,
    capacity: int | None,
    as_json: bool,
    name: str,
    message: str,
) -> None:
    """Send a message to the channel NAME; JSON is an object, or - to read it from standard input.

    Bytes are written {"$bytes": "<base64>"}.
    """
    parsed = message_from(sys.stdin.read() if message == "-" else message)

    async def go() -> str:
        # The settings may have rules by pattern; who names a capacity wants this one.
        rules: dict[str, int] | None = None if capacity is None else {}
        async with layer.opened(expiry=expiry, capacity=capacity, channel_capacity=rules) as opened:
            await (opened.group_send if to_group else opened.send)(name, parsed)
            return str(await opened.locate(name))

    shard = asyncio.run(go())
    if as_json:
        options.show(json.dumps({"name": name, "shard": shard}))
    else:
        options.show(f"sent to {name} on shard {shard}")


def _until_options(count: int | None) -> Callable[[F], F]:
    default = "1" if count else "no limit"

    def decorate(command: F) -> F:
        command = click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(0.001),
            metavar="SECONDS",
            help="End after so long (default: wait for ever).",
        )(command)
        return click.option(
            "--count",
            type=click.IntRange(1),
            default=count,
            help=f"End after so many messages (default: {default}).",
        )(command)

    return decorate


@click.command("receive")
@layer_options
@_until_options(1)
@click.argument("channel")
def receive(layer: LayerOptions, count: int, timeout_s: float | None, channel: str) -> None:
    """Take messages from a normal channel, one line of JSON each; nobody else gets them then.

    Exit code 7: not as many had come when the time was over.
    """

    async def go() -> int:
        async with layer.opened() as opened:
            return await _print_messages(opened, channel, count, timeout_s)

    _end(_run(go()), count)


@click.command("tail")
@layer_options
@_until_options(None)
@click.argument("group")
def tail(layer: LayerOptions, count: int | None, timeout_s: float | None, group: str) -> None:
    """Join a group and print its messages as they come, one line of JSON each, until Ctrl-C.

    Exit code 7: with --count, not as many had come when the time was over.
    """

    async def go() -> int:
        async with layer.opened() as opened:
            channel = await opened.new_channel("tail")
            await opened.group_add(group, channel)
            click.echo(f"joined {group} as {channel}; Ctrl-C ends", err=True)
            try:
                return await _print_messages(opened, channel, count, timeout_s)
            finally:
                await opened.group_discard(group, channel)

    _end(_run(go()), count)


async def _print_messages(
    layer: ClusterChannelLayer, channel: str, count: int | None, timeout_s: float | None
) -> int:
    """Print until there were so many, or the time is over; how many there were."""
    printed = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while count is None or printed < count:
                click.echo(text_of(await layer.receive(channel)))
                printed += 1
    return printed


def _run(work: Coroutine[Any, Any, int]) -> int | None:
    """The result; None: a signal asked for the end."""
    try:
        return run(work)
    except (asyncio.CancelledError, KeyboardInterrupt):
        return None


def _end(printed: int | None, count: int | None) -> None:
    if printed is not None and count is not None and printed < count:
        click.get_current_context().exit(exits.TIMED_OUT)


@click.command("probe")
@layer_options
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.1, 60),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a message to itself may take.",
)
@click.option(
    "--need",
    type=click.Choice(["all", "any"]),
    default="all",
    show_default=True,
    help="Which shards must work for exit code 0: all that are not down, or at least one.",
)
@options.as_json
def probe(layer: LayerOptions, timeout_s: float, need: str, as_json: bool) -> None:
    """Send a message to itself through every shard.

    Exit code 5 if that does not work. For a liveness probe take --need any: a lost shard is no
    reason to restart the processes that go on without it.
    """

    async def go() -> list[probing.Probe]:
        async with layer.opened(timeout=timeout_s) as opened:
            return await probing.probe(opened, timeout_s)

    found = asyncio.run(go())
    options.show(probing.as_json(found) if as_json else probing.as_table(found))
    passed = [one.reason is None for one in found]
    if not (all(passed) if need == "all" else any(passed)):
        click.get_current_context().exit(exits.FOUND)


COMMANDS = (send, receive, tail, probe)
