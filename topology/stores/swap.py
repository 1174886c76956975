"""The rule of compare-and-set that all stores share."""

from __future__ import annotations

from topology.errors import StaleEpoch, TopologyInvalid
from topology.model import Topology


def require_swappable(
    current: Topology | None, new: Topology, *, expected_epoch: int | None
) -> None:
    """StaleEpoch unless the expected epoch is current; TopologyInvalid unless the new is higher."""
    found = None if current is None else current.epoch
    if found != expected_epoch:
        raise StaleEpoch(expected_epoch, found)
    if found is not None and new.epoch <= found:
        raise TopologyInvalid(f"epoch {new.epoch} cannot follow epoch {found}: it must be higher")
