"""What deploy/ holds is what its readers accept: Kubernetes, systemd and Compose."""

import importlib.metadata
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_REPOSITORY = Path(__file__).resolve().parents[2]
_DEPLOY = _REPOSITORY / "deploy"
_UNITS = sorted((_DEPLOY / "systemd").glob("*.service"))


def _manifests() -> list[Any]:
    """All objects of all manifests, with what they are called."""
    return [
        pytest.param(one, id=f"{one['kind']}-{one['metadata']['name']}")
        for path in sorted((_DEPLOY / "kubernetes").glob("*.yaml"))
        for one in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize("manifest", _manifests())
def test_manifests_have_the_shape_that_kubernetes_wants(manifest: dict[str, Any]) -> None:
    """Valid against the schema of the newest version known, with no field that it does not know."""
    version = kubernetes_validate.latest_version()
    kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schema_finds_mistakes() -> None:
    """A field that is spelt wrongly is not accepted."""
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": {"selektor": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_what_may_be_evicted_is_bounded() -> None:
    """Shards, ZooKeeper servers, monitors and web hosts each have a PodDisruptionBudget."""
    manifests = [parameter.values[0] for parameter in _manifests()]
    budgets = {
        one["spec"]["selector"]["matchLabels"]["part"]
        for one in manifests
        if one["kind"] == "PodDisruptionBudget"
    }
    assert {"shard", "zookeeper", "monitor", "web"} <= budgets


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
@pytest.mark.parametrize("unit", _UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_the_units(unit: Path, tmp_path: Path) -> None:
    """Nothing is unknown or misspelt; the programs need not be installed here."""
    text = re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(encoding="utf-8"))
    copy = tmp_path / unit.name
    copy.write_text(text, encoding="utf-8")
    outcome = subprocess.run(
        [str(shutil.which("systemd-analyze")), "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    about_it = [line for line in outcome.stderr.splitlines() if unit.stem.rstrip("@") in line]
    assert about_it == []


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not here")
def test_compose_understands_the_site() -> None:
    """The example's variables are all that it needs; every long-lived service is bounded."""
    outcome = subprocess.run(
        [
            *("docker-compose", "--env-file", "deploy/example.env"),
            *("--profile", "more", "--profile", "metrics", "config"),
        ],
        cwd=_REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    services = yaml.safe_load(outcome.stdout)["services"]
    assert len(services) == 16
    assert all(one["restart"] == "unless-stopped" for one in services.values())
    assert all("mem_limit" in one for one in services.values())
    shards = {name for name, one in services.items() if "front" in one["networks"]}
    assert not any(name.startswith(("shard", "zookeeper")) for name in shards)


def test_the_example_says_which_passwords_to_change() -> None:
    """No password of the example looks as if it could stay."""
    text = (_DEPLOY / "example.env").read_text(encoding="utf-8")
    passwords = re.findall(r"(?m)^\w*(?:PASSWORD|SECRET\w*)=(.*)$", text)
    assert len(passwords) == 7
    assert all(one.startswith("change-me") for one in passwords)


def test_the_image_gets_all_that_the_package_needs() -> None:
    """Each requirement of the package and of the image's extras has a version and a hash."""
    metadata = importlib.metadata.distribution("cluster-layer").requires or []
    locked = set(
        re.findall(r"(?m)^([\w.-]+)==", (_DEPLOY / "requirements.txt").read_text(encoding="utf-8"))
    )
    wanted = {
        canonicalize_name(requirement.name)
        for requirement in map(Requirement, metadata)
        if any(
            requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            for extra in ("demo", "encryption", "metrics")
        )
    }
    assert {"redis", "daphne", "cryptography"} <= wanted
    assert wanted <= {canonicalize_name(name) for name in locked}
