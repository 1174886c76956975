"""A Django view that says whether the channel layer is healthy, for load balancers and probes.

::

    from cluster_layer.views import health

    urlpatterns = [path("health/channels", health)]
"""

from __future__ import annotations

from typing import Any

from channels.layers import channel_layers
from django.http import HttpRequest, JsonResponse

from cluster_layer.layer import ClusterChannelLayer
from topology.errors import ClusterError


async def health(request: HttpRequest, alias: str = "default") -> JsonResponse:  # noqa: ARG001
    """200 if the layer carries messages through every shard, 503 if not; the details as JSON."""
    layer = channel_layers[alias]
    if not isinstance(layer, ClusterChannelLayer):
        problem = f"CHANNEL_LAYERS[{alias!r}] is a {type(layer).__name__}, no ClusterChannelLayer"
        return _answer({"ok": False, "error": problem})
    try:
        found = await layer.health()
    except ClusterError as error:
        return _answer({"ok": False, "error": str(error)})
    return _answer(found.as_dict())


def _answer(fields: dict[str, Any]) -> JsonResponse:
    answer = JsonResponse(fields, status=200 if fields["ok"] else 503)
    answer["Cache-Control"] = "no-store"
    return answer
