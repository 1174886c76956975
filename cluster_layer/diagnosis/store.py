"""Rules about where the topology is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from cluster_layer.diagnosis.findings import Finding, Severity, StoreRule, count, listed, ms
from cluster_layer.overview import StoreView

#: A session is a transaction, which a majority writes to disk.
SLOW_STORE_S: Final = 0.25


def _store_reachable(store: StoreView) -> Iterator[Finding]:
    rule, trouble = "store.reachable", store.trouble
    if trouble is not None:
        remedy = "traffic goes on without the store; changes and monitors wait for it: see to it"
        if store.empty:
            remedy = "init creates the first topology"
        elif "NoAuth" in trouble or "AuthFailed" in trouble:
            remedy = "give a login that may read it, in --store-options: digest or sasl"
        yield Finding(Severity.PROBLEM, rule, "store", trouble, remedy)
    down = [server for server in store.servers if not server.serves]
    up = [server for server in store.servers if server.serves]
    for server in down:
        yield Finding(
            Severity.WARNING if up else Severity.PROBLEM,
            rule,
            server.address,
            f"it does not serve: {server.reason}",
            "start it, or see why this host cannot reach it",
        )
    slow = [server for server in up if (server.latency_s or 0) > SLOW_STORE_S]
    for server in slow:
        took = f"it took {ms(server.latency_s)} to begin a session"
        remedy = "changes wait for it at each step: look at its disk, its heap and the network"
        yield Finding(Severity.NOTE, rule, server.address, took, remedy)
    if up and not down and trouble is None:
        slowest = ms(max(server.latency_s or 0 for server in up))
        yield Finding(Severity.OK, rule, "store", f"{count(up, 'server')}, {slowest} at most")


def _store_quorum(store: StoreView) -> Iterator[Finding]:
    rule, servers = "store.quorum", store.servers
    if store.kind != "zookeeper":
        what = f"the topology is kept in a {store.kind}, which processes of one host share"
        yield Finding(Severity.NOTE, rule, "store", what, "for several hosts, use ZooKeeper")
        return
    known = len(servers)
    if known == 1:
        what = "there is one ZooKeeper server: without it nothing can be changed or healed"
        yield Finding(Severity.NOTE, rule, "store", what, "run three, and name them all in --store")
    elif known and known % 2 == 0:
        what = f"{known} ZooKeeper servers survive no more losses than {known - 1} would"
        yield Finding(Severity.NOTE, rule, "store", what, "run an odd number of them")
    serving = sum(server.serves for server in servers)
    if 1 < serving < known and serving == known // 2 + 1:
        what = f"{serving} of {known} ZooKeeper servers serve: the next loss ends the quorum"
        yield Finding(Severity.WARNING, rule, "store", what, "bring the others back")
    elif known > 1 and serving == known:
        yield Finding(Severity.OK, rule, "store", f"all {known} servers serve")
    leaders = [server.address for server in servers if server.role == "leader"]
    alone = [server.address for server in servers if server.role == "standalone"]
    if known > 1 and (len(leaders) > 1 or alone):
        what = f"these servers are no ensemble: {listed(leaders + alone)} decide on their own"
        yield Finding(Severity.PROBLEM, rule, "store", what, "configure them as one ensemble")


def _store_access(store: StoreView) -> Iterator[Finding]:
    rule = "store.access"
    if store.unwritable is not None:
        yield Finding(
            Severity.WARNING,
            rule,
            "store",
            f"this login may read the topology, and not write: {store.unwritable}",
            "that is right for processes; operators and monitors need one that may write",
        )
    elif store.trouble is None:
        yield Finding(Severity.OK, rule, "store", "operators can write")
    if store.kind == "zookeeper" and not store.login:
        yield Finding(
            Severity.NOTE,
            rule,
            "store",
            "there is no login: whoever reaches ZooKeeper can read and change the topology",
            "give operators a digest or sasl login, or keep others away from its port",
        )


RULES: Final[Sequence[StoreRule]] = (
    _store_reachable,
    _store_quorum,
    _store_access,
)
