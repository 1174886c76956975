"""A cluster of two shards, a third one that may come, and a process that is well."""

from tests.topology.strategies import CLUSTER
from topology.model import Shard
from topology.planning import initial_topology
from topology.ports import ProcessReport

A, B, C = (Shard(x, f"redis://{x}") for x in "abc")
TOPOLOGY = initial_topology([A, B], cluster=CLUSTER, epoch=5)
PROCESS = ProcessReport(
    id="p1",
    role="process",
    host="web-1",
    pid=7,
    prefix="asgi",
    version="1",
    receives=True,
    alive=True,
    epoch=5,
    settled=5,
    unreachable={},
    waiting_for=None,
    age_s=0.5,
)
