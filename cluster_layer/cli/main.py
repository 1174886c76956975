"""`cluster-layer`: the root of all verbs, and what an error means to whoever called.

Exit codes: 0 done; 1 refused or failed, and provably nothing was changed; 2 wrong usage; 3 it may
or may not have happened: look with `topology show` before trying again.
"""

from typing import Any

import click

from cluster_layer.cli import changing, completion, looking, messages
from cluster_layer.errors import ConfigError, InvalidMessage, InvalidName
from topology import ClusterError, StoreConfigError

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_UNKNOWN = 3


class _Group(click.Group):
    """Turns the project's errors into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ClusterError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(_exit_code(error))


def _exit_code(error: ClusterError) -> int:
    if isinstance(error, StoreConfigError | ConfigError | InvalidName | InvalidMessage):
        return EXIT_USAGE
    return EXIT_REFUSED if error.definite else EXIT_UNKNOWN


@click.group(cls=_Group)
@click.version_option(package_name="cluster-layer")
def main() -> None:
    """Set up, look at and change the topology of a cluster-layer.

    Exit codes: 0 done, 1 refused and nothing changed, 2 wrong usage, 3 outcome unknown.
    """


for command in (
    *changing.COMMANDS,
    *looking.COMMANDS,
    *messages.COMMANDS,
    *completion.COMMANDS,
):
    main.add_command(command)
