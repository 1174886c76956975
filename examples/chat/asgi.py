"""What Daphne serves: the page over HTTP, the chat over WebSocket."""

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "examples.chat.settings")
http = get_asgi_application()

# Consumers may be imported only when Django is set up.
from examples.chat.consumers import ChatConsumer  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": AllowedHostsOriginValidator(URLRouter([path("chat", ChatConsumer.as_asgi())])),
    }
)
