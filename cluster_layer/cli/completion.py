"""Completion in a shell: click's, and shard ids where they cost little."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem, get_completion_class

from cluster_layer.cli.gathering import last_good
from cluster_layer.config import default_topology_cache
from topology.errors import ClusterError
from topology.model import Topology
from topology.stores import open_store

_PROGRAM = "cluster-layer"
_VARIABLE = "_CLUSTER_LAYER_COMPLETE"


def complete_shards(
    context: click.Context, _parameter: click.Parameter, begun: str
) -> list[CompletionItem]:
    """The shards of the store that the command line, or the environment, names.

    Nobody waits for ZooKeeper while typing: of it, the last good copy is read.
    """
    url = context.params.get("store") or os.environ.get("CLUSTER_LAYER_STORE", "")
    topology = _quickly(str(url))
    if topology is None:
        return []
    return [
        CompletionItem(shard.id, help=shard.state.value)
        for shard in topology.shards
        if shard.id.startswith(begun)
    ]


def _quickly(url: str) -> Topology | None:
    try:
        if url.startswith("file://"):
            store = open_store(url)
            try:
                return store.read()
            finally:
                store.close()
        path = default_topology_cache(url)
        return None if path is None else last_good(path)
    except ClusterError:
        return None


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete verbs, options and shard ids.

    For this session of bash: source <(cluster-layer completion bash)
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has these three
    root = click.get_current_context().find_root()
    click.echo(kind(root.command, {}, _PROGRAM, _VARIABLE).source())


COMMANDS: Sequence[click.Command] = (completion,)
