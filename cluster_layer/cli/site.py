"""The settings of a site, for a command line that runs with them (`manage.py cluster`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import click
from click.core import ParameterSource

from cluster_layer.config import Config, TopologySource
from cluster_layer.errors import ConfigError

# Of a CONFIG, what makes a layer that meets the site's. Hooks and metrics belong to its own
# processes, and nothing is dropped on purpose by hand.
_MEETING: Final = (
    "prefix",
    "expiry",
    "group_expiry",
    "capacity",
    "channel_capacity",
    "symmetric_encryption_keys",
    "message_size_limit",
    "timeout",
    "connect_timeout",
)


@dataclass(frozen=True, slots=True)
class Site:
    """One entry of CHANNEL_LAYERS; `where` names it. Its repr shows no secret."""

    where: str
    config: Config
    given: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_config(cls, where: str, given: Mapping[str, Any]) -> Site:
        """ConfigError names the setting, the value and what is allowed."""
        try:
            return cls(where, Config.from_dict(given), dict(given))
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    @property
    def source(self) -> TopologySource:
        """Where the topology is kept. ConfigError: the shards are a fixed list."""
        topology = self.config.topology
        if topology is None:
            hosts = ", ".join(host.redacted for host in self.config.hosts)
            raise ConfigError(
                f"{self.where}: CONFIG hosts is a fixed list ({hosts:.200}), and this verb works "
                'on a store: set CONFIG topology, such as "zookeeper://host:2181/path", instead of '
                "hosts; send, receive, tail and probe do without"
            )
        return topology

    @property
    def addresses(self) -> Mapping[str, object]:
        """As in CONFIG."""
        return self.given.get("addresses") or {}

    def layer_config(self) -> dict[str, Any]:
        """The CONFIG of a layer that meets the site's."""
        wanted = ("hosts", "topology", "topology_cache", "addresses", *_MEETING)
        return {key: self.given[key] for key in wanted if key in self.given}


def current_site() -> Site | None:
    """Of the verb that runs; None: it knows of no settings."""
    return click.get_current_context().find_object(Site)


def require_not_given(site: Site, *options: str) -> None:
    """Refuse options whose values the settings have; what the environment says does not count."""
    context = click.get_current_context()
    for option in context.command.params:
        if option.name not in options:
            continue
        if context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"{option.opts[0]}: {site.where} says it; leave it out, name another entry with "
                "--layer, or run cluster-layer"
            )
