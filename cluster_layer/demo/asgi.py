"""What Daphne serves: the page over HTTP, the chat over WebSocket; and what a worker runs."""

import os

from channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cluster_layer.demo.settings")
http = get_asgi_application()

# Consumers may be imported only when Django is set up.
from cluster_layer.demo.consumers import DICE, ChatConsumer  # noqa: E402
from cluster_layer.demo.worker import DiceConsumer  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": AllowedHostsOriginValidator(URLRouter([path("chat", ChatConsumer.as_asgi())])),
        "channel": ChannelNameRouter({DICE: DiceConsumer.as_asgi()}),
    }
)
