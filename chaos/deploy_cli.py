"""`python -m chaos.deploy_cli`, the module behind scripts/deploy-check."""

from __future__ import annotations

import asyncio
import signal
import sys
import time

import click
from rich.console import Console

from chaos.deployment import DeploymentPlan, bring_up, run_deployment_check
from chaos.environments.compose import ComposeSite
from cluster_layer.demo.report import ProgressLine, report
from topology.errors import ClusterError

# So that a shard that was marked as down comes back while the check looks on.
_SETTINGS = {"MONITOR_QUIET_SECONDS": "5", "ZOOKEEPER_HEAP": "128m"}


@click.command()
@click.option("--clients", default=12, show_default=True, help="Clients, all in several rooms.")
@click.option("--trouble", default=4.0, show_default=True, help="Seconds that a trouble lasts.")
@click.option(
    "--heal-limit",
    default=5.0,
    show_default=True,
    help="Seconds after which a shard's loss may cost nothing any more.",
)
@click.option("--brief", is_flag=True, help="Only three of the troubles: about two minutes.")
@click.option("--keep", is_flag=True, help="Leave the site running when something went wrong.")
def main(clients: int, trouble: float, heal_limit: float, brief: bool, keep: bool) -> None:
    """Bring the site of docker-compose.yml up, make trouble, account for every message.

    Exit code 0 if every message sent outside the outages arrived, exactly once, everywhere it
    should; 1 if not; 2 if the check itself failed.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: signal.raise_signal(signal.SIGINT))
    console = Console()
    began = time.monotonic()
    plan = DeploymentPlan(clients=clients, trouble_s=trouble, heal_limit_s=heal_limit, brief=brief)
    site = ComposeSite(_SETTINGS)
    code = 2
    told: list[str] = []
    try:
        bring_up(site, lambda text: console.print(f"{text} ({site.project})", markup=False))
        console.print(f"up after {time.monotonic() - began:.0f} s; the chat is at {site.url}")
        with ProgressLine(console) as progress:
            outcome = asyncio.run(run_deployment_check(site, plan, progress.show, told.append))
        for line in told:
            console.print(line, style="red", markup=False)
        code = report(console, outcome)
    except ClusterError as error:
        console.print(f"the check failed: {error}", style="bold red", markup=False)
    except KeyboardInterrupt:
        code = 130
    finally:
        if keep and code:
            console.print(f"left running: docker ps --filter name={site.project}")
        else:
            console.print("taking the site down")
            site.close()
    console.print(f"took {time.monotonic() - began:.0f} s")
    sys.exit(code)


if __name__ == "__main__":
    main()
