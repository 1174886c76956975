"""Django settings of the example; where its database and shards are comes from the environment."""

import os

SECRET_KEY = "outbox-example"
INSTALLED_APPS = ["examples.outbox"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["OUTBOX_DATABASE"],
        # Several processes write: wait for each other, and ask for the lock at once.
        "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
    },
}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "cluster_layer.ClusterChannelLayer",
        "CONFIG": {"hosts": os.environ["OUTBOX_SHARDS"].split(), "timeout": 1.0},
    },
}
