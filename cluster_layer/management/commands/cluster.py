"""``manage.py cluster``: the operator's command line, with what the settings say."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, Final

from channels.layers import DEFAULT_CHANNEL_LAYER
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.module_loading import import_string

from cluster_layer.cli import exits
from cluster_layer.cli.main import main
from cluster_layer.cli.site import Site
from cluster_layer.errors import ConfigError
from cluster_layer.program import came_by, of_site

_BACKEND: Final = "cluster_layer.ClusterChannelLayer"


class Command(BaseCommand):
    """Hands everything from the verb on to `cluster-layer`, and its exit code back."""

    help = (
        "Set up, look at and change the cluster that an entry of CHANNEL_LAYERS names: status, "
        "check, shard add URL, resume, ... The verbs, their options and exit codes are those of "
        "cluster-layer, without --store, --store-options, --addresses, --prefix and --keys-file, "
        "which the settings say."
    )
    # Whoever marks a lost shard as down must not be held up by another app's mistake; what is wrong
    # with this app's setting is told all the same.
    requires_system_checks: Sequence[str] = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.epilog = f"Verbs: {', '.join(main.commands)}. VERB --help explains one."
        parser.add_argument(
            "--layer",
            default=DEFAULT_CHANNEL_LAYER,
            metavar="NAME",
            help="alias in CHANNEL_LAYERS (default: %(default)s)",
        )
        parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="VERB ...")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        alias, arguments = _alias_among(options["arguments"], options["layer"])
        try:
            site = _site_of(alias)
        except ConfigError as error:
            raise CommandError(str(error), returncode=exits.USAGE) from None
        try:
            program = of_site(alias)
            came_by(program)
            main.main(arguments, prog_name=program, obj=site)
        except SystemExit as end:
            if end.code:
                raise


def _alias_among(arguments: Sequence[str], alias: str) -> tuple[str, list[str]]:
    """`--layer` may come behind the verb, too, as with this app's other commands."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--layer", default=alias)
    found, others = parser.parse_known_args(arguments)
    return found.layer, others


def _site_of(alias: str) -> Site:
    """The entry of the settings. ConfigError names the setting, its value and the remedy."""
    layers = getattr(settings, "CHANNEL_LAYERS", {})
    if alias not in layers:
        known = ", ".join(repr(name) for name in layers) or "nothing"
        raise ConfigError(
            f"CHANNEL_LAYERS has no {alias!r}, it has {known}; name an entry of it with --layer"
        )
    where = f"CHANNEL_LAYERS[{alias!r}]"
    config = _our_config(where, layers[alias])
    return Site.from_config(where, config)


def _our_config(where: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    from cluster_layer.layer import ClusterChannelLayer
    from cluster_layer.migrating import TwoLayers

    name = entry.get("BACKEND")
    config: Mapping[str, Any] = entry.get("CONFIG", {})
    try:
        backend = import_string(name)
    except (AttributeError, ImportError) as error:
        raise ConfigError(f"{where}: BACKEND {name!r} can't be imported: {error}") from None
    if isinstance(backend, type) and issubclass(backend, TwoLayers):
        new: Mapping[str, Any] = config.get("new", {})
        return new
    if isinstance(backend, type) and issubclass(backend, ClusterChannelLayer):
        return config
    raise ConfigError(
        f"{where}: BACKEND {name!r} is another layer; this command needs {_BACKEND!r}: change "
        "BACKEND, or name another entry with --layer"
    )
