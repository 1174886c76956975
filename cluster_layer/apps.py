"""The Django app: add ``"cluster_layer"`` to INSTALLED_APPS for its system checks."""

from __future__ import annotations

from django.apps import AppConfig


class ClusterLayerConfig(AppConfig):
    """Nothing but checks: the layer itself needs no app."""

    name = "cluster_layer"
    verbose_name = "Cluster channel layer"

    def ready(self) -> None:
        from cluster_layer import checks

        checks.register_all()
