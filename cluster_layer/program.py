"""How the command line is called: the one place that hints take its name from.

By whoever came by it: the program that is installed, or a site's `manage.py`.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

CLUSTER_LAYER: Final = "cluster-layer"
DEFAULT_ALIAS: Final = "default"  # of Channels, which this need not import
_came_by: ContextVar[str] = ContextVar("cluster_layer_program", default=CLUSTER_LAYER)


def came_by(program: str) -> None:
    """From here on, in this context and those that it begins."""
    _came_by.set(program)


def command(verb: str) -> str:
    """What to type for a verb, to get there by the same way."""
    return f"{_came_by.get()} {verb}"


def of_site(alias: str) -> str:
    """The command line of a site, for this entry of CHANNEL_LAYERS."""
    layer = "" if alias == DEFAULT_ALIAS else f" --layer {alias}"
    return f"manage.py cluster{layer}"
