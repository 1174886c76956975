"""One function per verb of the command line; none of them prints."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cluster_layer.cli.options import StoreOptions
from cluster_layer.cli.session import carried_through, this_operator
from cluster_layer.endpoints import Endpoint
from cluster_layer.errors import ConfigError
from cluster_layer.names import require_channel_name
from cluster_layer.program import command
from topology import Shard, StaleEpoch, Topology, TopologyUnavailable, slot_of
from topology.decisions import Decisions
from topology.ids import new_cluster_id
from topology.model import Phase
from topology.planning import initial_topology

_NAMED_SHARD = re.compile(r"(?P<id>[A-Za-z0-9._-]+)=(?P<url>[a-z+]+://.*)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a channel or a group lives; while its slot moves it is served on two shards."""

    name: str
    slot: int
    shard: Shard  #: the one that is written to
    other: Shard | None  #: the one to come (prepared), or the one that was (committed)
    phase: Phase


def shards_from(specifications: Sequence[str], weights: Sequence[str]) -> tuple[Shard, ...]:
    """Shards from "URL" or "ID=URL" and "ID=WEIGHT"; ConfigError names what is wrong.

    Without an ID a shard gets the one that the same URL has in CONFIG `hosts`, so that both ways
    to configure the same servers yield the same table.
    """
    url_by_id: dict[str, str] = {}
    for specification in specifications:
        named = _NAMED_SHARD.fullmatch(specification)
        url = named["url"] if named else specification
        endpoint_id = Endpoint.from_url(url).id
        shard_id = named["id"] if named else endpoint_id
        if shard_id in url_by_id:
            raise ConfigError(f"two shards are called {shard_id!r}; write ID=URL to name them")
        url_by_id[shard_id] = url
    weight_by_id = dict(_weight_from(weight, url_by_id) for weight in weights)
    return tuple(
        Shard(id=shard_id, url=url, weight=weight_by_id.get(shard_id, 1))
        for shard_id, url in url_by_id.items()
    )


async def init(
    store_options: StoreOptions, shards: Iterable[Shard], *, dry_run: bool = False
) -> Topology:
    """Create the store's first topology; StaleEpoch if it has one."""
    topology = initial_topology(shards, cluster=new_cluster_id())
    with store_options.opened() as store:
        if dry_run:
            if (found := store.read()) is not None:
                raise StaleEpoch(None, found.epoch)
        else:
            await carried_through(Decisions(store, this_operator()).create(topology))
    return topology


def read(store_options: StoreOptions) -> Topology:
    """The store's topology; TopologyUnavailable if it has none."""
    with store_options.opened() as store:
        topology = store.read()
    if topology is None:
        raise TopologyUnavailable(
            f"{store_options} has no topology; `{command('init')}` creates the first one"
        )
    return topology


def locate(store_options: StoreOptions, names: Iterable[str]) -> tuple[Place, ...]:
    """InvalidName if one of them is neither a channel's nor a group's."""
    wanted = list(names)
    for name in wanted:
        require_channel_name(name)  # every name of a group is one, too
    topology = read(store_options)
    return tuple(_place(topology, name) for name in wanted)


def _place(topology: Topology, name: str) -> Place:
    slot = slot_of(name)
    return Place(name, slot, topology.owner_of(slot), topology.other_home(slot), topology.phase)


def weight_from(specification: str) -> tuple[str, float]:
    """ "ID=NUMBER" as an id and a weight; ConfigError."""
    # From the right: a shard's id may be a URL's host, port and query.
    shard_id, _, weight = specification.rpartition("=")
    try:
        return shard_id, float(weight)
    except ValueError:
        raise ConfigError(f"--weight {specification!r}: {weight!r} is not a number") from None


def weighted(shard: Shard, weight: float | None) -> Shard:
    return shard if weight is None else replace(shard, weight=weight)


def _weight_from(specification: str, known: Iterable[str]) -> tuple[str, float]:
    shard_id, weight = weight_from(specification)
    if shard_id not in known:
        raise ConfigError(
            f"--weight {specification!r}: there is no shard {shard_id!r}, only {', '.join(known)}"
        )
    return shard_id, weight
