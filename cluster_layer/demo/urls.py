"""The page, its two files, the figures that it shows, and the button that kills a shard."""

import os
import signal
import socket
from pathlib import Path
from typing import Any

from channels.layers import get_channel_layer
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.http import require_POST

from cluster_layer.demo.state import read_state
from cluster_layer.views import health

_STATIC = Path(__file__).with_name("static")
_CONTENT_TYPES = {
    "chat.html": "text/html; charset=utf-8",
    "chat.css": "text/css; charset=utf-8",
    "chat.js": "text/javascript; charset=utf-8",
}


def page_file(request: HttpRequest, name: str = "chat.html") -> HttpResponse:
    if name not in _CONTENT_TYPES:
        raise Http404
    response = HttpResponse((_STATIC / name).read_bytes(), content_type=_CONTENT_TYPES[name])
    response["Cache-Control"] = "no-store"
    return response


async def status(request: HttpRequest) -> JsonResponse:
    """This server's layer in figures, and where everything is."""
    figures: dict[str, Any] = get_channel_layer().stats()
    servers: list[str] = []
    shards = figures["shards"]
    if settings.SITE_DIRECTORY is not None:
        state = read_state(settings.SITE_DIRECTORY)
        servers = state["servers"]
        shards = {
            shard: {**place, **shards.get(shard, {})} for shard, place in state["shards"].items()
        }
    response = JsonResponse(
        {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "servers": servers,
            "epoch": figures["epoch"],
            "shards": shards,
            "lost": figures["lost"],
        }
    )
    # The page shows all servers' figures, whichever of them it came from.
    response["Access-Control-Allow-Origin"] = "*"
    return response


def metrics(request: HttpRequest) -> HttpResponse:
    """Figures for Prometheus, if the settings ask for them."""
    if settings.CHANNEL_LAYERS["default"]["CONFIG"]["metrics"] != "prometheus":
        raise Http404
    # Imported here: the demo does without the package.
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)


@require_POST
def kill_shard(request: HttpRequest, shard: str) -> HttpResponse:
    """SIGKILL for a shard of this demo; the demo brings it back blank."""
    # Other sites' pages cannot set this header without asking first, and are not allowed to.
    if request.headers.get("X-Chat-Demo") != "1":
        return HttpResponse("only the demo's own page may do this", status=403)
    directory = settings.SITE_DIRECTORY
    place = None if directory is None else read_state(directory)["shards"].get(shard)
    if place is None:
        raise Http404
    if place["pid"] is not None:
        os.kill(place["pid"], signal.SIGKILL)
    return HttpResponse(status=204)


urlpatterns = [
    path("", page_file),
    path("files/<str:name>", page_file),
    path("status.json", status),
    path("metrics", metrics),
    path("health/channels", health),
    path("shards/<str:shard>/kill", kill_shard),
]
