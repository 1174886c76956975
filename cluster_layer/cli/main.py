"""`cluster-layer`: the root of all verbs, and what an error means to whoever called (`exits`)."""

import logging
from typing import Any

import click

from cluster_layer.cli import changing, completion, exits, looking, messages, monitoring, under_way
from topology import ClusterError

_CODES = ", ".join(f"{code} {meaning}" for code, meaning in exits.MEANINGS.items())


class _Group(click.Group):
    """Turns the project's errors into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ClusterError as error:
            click.echo(f"error: {exits.text_of(error)}", err=True)
            ctx.exit(exits.code_of(error))


@click.group(cls=_Group, epilog=f"Exit codes: {_CODES}.")
@click.version_option(package_name="cluster-layer")
def main() -> None:
    """Set up, look at and change the topology of a cluster-layer."""
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
        # What a verb cannot reach, and what a monitor sees, they tell themselves.
        logging.getLogger("cluster_layer").setLevel(logging.ERROR)
        logging.getLogger("topology.monitor").setLevel(logging.ERROR)


for command in (
    *changing.COMMANDS,
    *under_way.COMMANDS,
    *monitoring.COMMANDS,
    *looking.COMMANDS,
    *messages.COMMANDS,
    *completion.COMMANDS,
):
    main.add_command(command)
