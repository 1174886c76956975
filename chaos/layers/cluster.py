"""The cluster layer itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster_layer import ClusterChannelLayer


class Cluster(ClusterChannelLayer):
    """With the few questions that the workloads ask."""

    def __init__(self, config: Mapping[str, Any], _hosts: Sequence[str] = ()) -> None:
        super().__init__(**config)
        self.timeout_s: float = self.config.timeout

    def shards(self) -> Sequence[str]:
        return sorted(self.stats()["shards"])

    def lost(self) -> Mapping[str, int]:
        counted: Mapping[str, int] = self.stats()["lost"]
        return counted

    def unconfirmed(self) -> int:
        counted: Mapping[str, int] = self.stats()["unconfirmed"]
        return sum(counted.values())
