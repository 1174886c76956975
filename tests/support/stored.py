"""What is in a store now."""

from topology.model import Topology
from topology.stores import open_store


def stored(url: str) -> Topology:
    """The topology there, which must be there."""
    store = open_store(url)
    try:
        topology = store.read()
    finally:
        store.close()
    assert topology is not None
    return topology
