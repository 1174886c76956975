"""Options that the verbs share, and how they show what they found."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from cluster_layer.cli.site import current_site, require_not_given
from cluster_layer.config import addresses_from
from cluster_layer.endpoints import Endpoint
from cluster_layer.errors import ConfigError
from topology import Shard, redacted_url
from topology.ports import OperatorStore
from topology.stores import open_store

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Where the topology is kept, and how to get there; its repr shows no secret."""

    url: str = field(repr=False)
    more: Mapping[str, object] = field(repr=False)
    addresses: Mapping[str, object] = field(default_factory=dict, repr=False)  # as in CONFIG

    def __post_init__(self) -> None:
        addresses_from(self.addresses)  # refuses what is wrong before anything is opened

    @contextmanager
    def opened(self) -> Iterator[OperatorStore]:
        """The store, closed at the end. StoreConfigError."""
        store = open_store(self.url, **self.more)
        try:
            yield store
        finally:
            store.close()

    def endpoint_for(self, shard: Shard) -> Endpoint:
        """How a shard is reached from here."""
        address = self.addresses.get(shard.id)
        return Endpoint.from_url(shard.url) if address is None else Endpoint.from_host(address)

    @property
    def kind(self) -> str:
        """What the topology is kept in: "zookeeper", "file", "memory"."""
        return self.url.partition("://")[0]

    @property
    def has_login(self) -> bool:
        """Whether the store knows who we are."""
        return "digest" in self.more or "sasl" in self.more

    def __str__(self) -> str:
        return str(redacted_url(self.url))


def store_parameters(command: F) -> F:
    """Where the topology and the shards are, as it was given: `store`, `more`, `addresses`."""
    for option in (
        click.option(
            "--addresses",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            envvar="CLUSTER_LAYER_ADDRESSES",
            show_envvar=True,
            help="A JSON file as CONFIG addresses: how shards are reached from here, by their ids, "
            "where the topology's URL is not the way.",
        ),
        click.option(
            "--store-options",
            "more",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            envvar="CLUSTER_LAYER_STORE_OPTIONS",
            show_envvar=True,
            help="A JSON file with the store's options: login, TLS, timeouts.",
        ),
        click.option(
            "--store",
            envvar="CLUSTER_LAYER_STORE",
            show_envvar=True,
            metavar="URL",
            help="Where the topology is kept: zookeeper://host:2181/path or file:///path.json.",
        ),
    ):
        command = option(command)
    return command


def store_options(command: F) -> F:
    """Where the topology and the shards are; the command gets it as `store`, a StoreOptions."""

    @store_parameters
    @functools.wraps(command)
    def with_store(
        *arguments: Any,
        store: str | None,
        more: Path | None,
        addresses: Path | None,
        **others: Any,
    ) -> Any:
        found = _store_of_settings() or store_of_options(store, more, addresses)
        return command(*arguments, store=found, **others)

    return with_store  # type: ignore[return-value]  # the options are click's business


def _store_of_settings() -> StoreOptions | None:
    site = current_site()
    if site is None:
        return None
    require_not_given(site, "store", "more", "addresses")
    return StoreOptions(site.source.url, site.source.options, site.addresses)


def store_of_options(url: str | None, more: Path | None, addresses: Path | None) -> StoreOptions:
    """What the command line and the environment say. UsageError, ConfigError."""
    if not url:
        context = click.get_current_context()
        option = next(one for one in context.command.params if one.name == "store")
        raise click.MissingParameter(ctx=context, param=option)
    return StoreOptions(
        url,
        _read_object("--store-options", more),
        _read_object("--addresses", addresses),
    )


as_json = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")


def show(output: object) -> None:
    """Print a text as it is, and anything else as rich does."""
    if isinstance(output, str):
        click.echo(output)
        return
    _console().print(output)


def width() -> int:
    """Columns that there are for a table."""
    return _console().width


def _console() -> Console:
    console = Console()
    # A file or a pipe has no width: nothing needs to be wrapped.
    return console if console.is_terminal else Console(width=200)


def _read_object(option: str, path: Path | None) -> dict[str, object]:
    if path is None:
        return {}
    try:
        options = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        # Not the error's own text: it may quote the file, which holds secrets.
        raise ConfigError(f"{option} {path}: not readable as JSON") from error
    if not isinstance(options, dict):
        raise ConfigError(f"{option} {path}: must be a JSON object such as {{}}")
    return options
