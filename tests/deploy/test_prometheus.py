"""Alerts and dashboard ask for what the layer exports: read, and tried with a real Prometheus."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from chaos.environments.prometheus import Prometheus, got
from cluster_layer.demo.site import Site
from cluster_layer.embedded import RedisServer, free_port
from cluster_layer.metrics.prometheus import PrometheusMetrics
from cluster_layer.processes import ChildProcess
from tests.support.layers import numbered, open_layer
from tests.support.promql import groupings, selectors, shown
from tests.support.waiting import eventually

_REPOSITORY = Path(__file__).resolve().parents[2]
_COMPOSE = _REPOSITORY / "deploy" / "compose"
_DASHBOARD = json.loads(
    (_REPOSITORY / "docs" / "grafana-dashboard.json").read_text(encoding="utf-8")
)
_RULES = yaml.safe_load((_COMPOSE / "alerts.yml").read_text(encoding="utf-8"))
_CONFIGURATION = yaml.safe_load((_COMPOSE / "prometheus.yml").read_text(encoding="utf-8"))

#: Panel's query -> its expression.
_PANELS = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in _DASHBOARD["panels"]
    for target in panel.get("targets", ())
}

#: What every scrape brings along.
_OF_THE_SCRAPE = {"instance", "job"}
_JOBS = {one["job_name"] for one in _CONFIGURATION["scrape_configs"]}


class Question(NamedTuple):
    """An expression, and what is shown of its answer."""

    expression: str
    template: str


def _questions() -> list[Any]:
    """All alerts and all panels' queries, with what they are called."""
    alerts = [
        (one["alert"], Question(one["expr"], " ".join(one["annotations"].values())))
        for group in _RULES["groups"]
        for one in group["rules"]
    ]
    panels = [
        (f"{panel['title']} {target['refId']}", Question(target["expr"], target["legendFormat"]))
        for panel in _DASHBOARD["panels"]
        for target in panel.get("targets", ())
    ]
    assert len(alerts) >= 6
    assert len(panels) >= 10
    return [pytest.param(question, id=name) for name, question in (*alerts, *panels)]


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Metric -> labels, of a layer that has sent something."""
    return asyncio.run(_exported())


async def _exported() -> dict[str, set[str]]:
    registry = CollectorRegistry()
    with RedisServer() as server:
        async with open_layer([server], metrics=PrometheusMetrics(registry)) as layer:
            await layer.send("orders", numbered(1))
            families = text_string_to_metric_families(generate_latest(registry).decode())
            found: dict[str, set[str]] = {"up": set()}
            for family in families:
                for sample in family.samples:
                    found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("question", _questions())
def test_what_is_asked_for_is_exported(
    question: Question, exported: Mapping[str, set[str]]
) -> None:
    """Every metric, every label that is compared, grouped by or shown, every job."""
    asked = list(selectors(question.expression))
    assert asked
    for metric, matchers in asked:
        assert metric in exported
        has = exported[metric] | _OF_THE_SCRAPE
        assert {label for label, _ in matchers} | groupings(question.expression) <= has
        assert {job for label, job in matchers if label == "job"} <= _JOBS
        left = groupings(question.expression) or has
        assert shown(question.template) <= left


def test_the_variables_of_the_dashboard_exist(exported: Mapping[str, set[str]]) -> None:
    """What an expression refers to by `$` is a variable, and one of a label that there is."""
    variables = {one["name"]: one["query"] for one in _DASHBOARD["templating"]["list"]}
    assert set(variables) == {"datasource", "layer"}
    assert variables["layer"] == "label_values(cluster_layer_epoch, layer)"
    assert "layer" in exported["cluster_layer_epoch"]


def test_a_metric_that_is_not_there_is_found() -> None:
    """The reading of expressions sees names, labels and groupings wherever they stand."""
    text = 'a_b - min by (x, y) (rate(c:d_total{e!="1", f=~"$g"}[$__rate_interval]) > 0) or up'
    assert list(selectors(text)) == [
        ("a_b", ()),
        ("c:d_total", (("e", "1"), ("f", "$g"))),
        ("up", ()),
    ]
    assert groupings(text) == {"x", "y"}
    assert shown("{{ $labels.shard }} of {{layer}}") == {"shard", "layer"}


def _needs(program: str) -> Any:
    return pytest.mark.skipif(
        shutil.which(program) is None,
        reason=f"{program} is not installed (on Debian: apt-get install prometheus)",
    )


def _promtool(*arguments: str, directory: Path) -> None:
    outcome = subprocess.run(
        [str(shutil.which("promtool")), *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def _configuration(directory: Path, targets: list[str] | None = None) -> Path:
    """The deployment's own, with its rules beside it; `targets` instead of its hosts."""
    (directory / "alerts.yml").write_bytes((_COMPOSE / "alerts.yml").read_bytes())
    text = (_COMPOSE / "prometheus.yml").read_text(encoding="utf-8")
    configuration = yaml.safe_load(text.replace("/etc/prometheus/", f"{directory}/"))
    if targets is not None:
        (job,) = configuration["scrape_configs"]
        job["static_configs"] = [{"targets": targets}]
        configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    return path


@_needs("promtool")
def test_promtool_accepts_configuration_and_rules(tmp_path: Path) -> None:
    """No warning either."""
    path = _configuration(tmp_path)
    _promtool("check", "config", "--lint=all", "--lint-fatal", str(path), directory=tmp_path)
    _promtool("check", "rules", "--lint=all", "--lint-fatal", "alerts.yml", directory=tmp_path)


@_needs("promtool")
def test_each_alert_fires_on_what_it_is_for(tmp_path: Path) -> None:
    """And on nothing less: alerts.yml beside this file says on what."""
    (tmp_path / "rules.yml").write_bytes((_COMPOSE / "alerts.yml").read_bytes())
    story = (_REPOSITORY / "tests" / "deploy" / "alerts.yml").read_bytes()
    (tmp_path / "story.yml").write_bytes(story)
    _promtool("test", "rules", "story.yml", directory=tmp_path)
    told = {
        one["alertname"]
        for test in yaml.safe_load(story)["tests"]
        for one in test["alert_rule_test"]
        if one["exp_alerts"]
    }
    assert told == {one["alert"] for group in _RULES["groups"] for one in group["rules"]}


@contextmanager
def _prometheus(directory: Path, targets: list[str]) -> Iterator[Prometheus]:
    port = free_port()
    server = ChildProcess(
        [
            str(shutil.which("prometheus")),
            f"--config.file={_configuration(directory, targets)}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        output=directory / "prometheus.log",
    )
    try:
        yield Prometheus(f"127.0.0.1:{port}")
    finally:
        server.stop()


@_needs("prometheus")
def test_prometheus_sees_a_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real web processes are scraped, each rule is evaluated, each panel shows something; an alert
    fires when a shard is gone, and none before."""
    monkeypatch.setenv("CHAT_METRICS", "prometheus")
    with Site(shards=2, servers=2) as site:
        hosts = [url.removeprefix("http://") for url in site.urls]
        for host in hosts:
            got(host, "/health/channels")
        with _prometheus(tmp_path, hosts) as prometheus:
            eventually(lambda: prometheus.targets() == dict.fromkeys(hosts, "up"))
            eventually(lambda: set(prometheus.rules("health").values()) == {"ok"})
            assert set(prometheus.rules("state").values()) == {"inactive"}
            for expression in _PANELS.values():
                query = expression.replace("$layer", "chat").replace("$__rate_interval", "30s")
                eventually(partial(prometheus.has, query), what=query)
            site.shards["shard-2"].kill()
            alert = "ShardNotConnected"
            eventually(lambda: prometheus.rules("state")[alert] == "firing", 60)
            states = prometheus.rules("state").items()
            others = {name for name, state in states if state == "firing"}
            assert others <= {alert, "MessagesLost", "OutcomesUnknown"}
