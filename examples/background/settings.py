"""The Django site of which the other programs are a part; for `runworker` and `channel_*`."""

from examples.background.config import CONFIG

SECRET_KEY = "background-example"
INSTALLED_APPS = ["channels", "cluster_layer"]
ASGI_APPLICATION = "examples.background.asgi.application"
USE_TZ = True
CHANNEL_LAYERS = {"default": {"BACKEND": "cluster_layer.ClusterChannelLayer", "CONFIG": CONFIG}}
