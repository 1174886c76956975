"""What a user gets: the wheel, in an empty environment outside the checkout, runs the demo."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

_REPOSITORY = Path(__file__).resolve().parents[2]
_VERSIONS = ("3.11", "3.12", "3.13")
_NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "target")
_INSTALLING_S, _RUNNING_S = 240, 120


def _python(version: str) -> str | None:
    """One of this version that can make virtual environments: on PATH, pyenv's, or beside ours."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    roots = {pyenv / "versions", Path(sys.base_prefix).parent}
    named = shutil.which(f"python{version}")
    found = sorted(one for root in roots for one in root.glob(f"{version}.*/bin/python{version}"))
    for candidate in [*found, *([Path(named)] if named else [])]:
        try:
            outcome = subprocess.run(
                [candidate, "-c", "import ensurepip, venv"],
                capture_output=True,
                timeout=30,
                check=False,
            )
        except OSError:
            continue
        if outcome.returncode == 0:
            return str(candidate)
    return None


def _run(*command: str | Path, cwd: Path, timeout_s: float) -> str:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV", "PYENV_VERSION"))
    }
    outcome = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert outcome.returncode == 0, f"{outcome.stdout[-4000:]}\n{outcome.stderr[-4000:]}"
    return outcome.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Made as a release is: an sdist, and the wheel from it."""
    source = tmp_path_factory.mktemp("source") / "project"
    shutil.copytree(_REPOSITORY, source, ignore=_NOT_COPIED)
    _run(sys.executable, "-m", "build", "--no-isolation", source, cwd=source, timeout_s=110)
    (wheel,) = (source / "dist").glob("*.whl")
    yield wheel
    shutil.rmtree(source)


@pytest.mark.parametrize("version", _VERSIONS)
def test_the_wheel_runs_the_demo(version: str, wheel: Path, tmp_path: Path) -> None:
    """Installed with nothing else, `cluster-layer-demo --check` accounts for every message."""
    python = _python(version)
    if python is None:
        pytest.skip(f"there is no Python {version} here that can make virtual environments")
    environment = tmp_path / "environment"
    _run(python, "-m", "venv", environment, cwd=tmp_path, timeout_s=60)
    programs = environment / "bin"
    # The bundled server is compiled for each Python, where there is no wheel of it: once is enough.
    ours = version == f"{sys.version_info.major}.{sys.version_info.minor}"
    extras = "demo" if shutil.which("redis-server") and not ours else "demo,embedded"
    _run(
        programs / "python",
        *("-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        f"cluster-layer[{extras}] @ {wheel.as_uri()}",
        cwd=tmp_path,
        timeout_s=_INSTALLING_S,
    )
    said = _run(programs / "cluster-layer", "--version", cwd=tmp_path, timeout_s=60)
    assert "0.1.0" in said
    said = _run(
        programs / "cluster-layer-demo",
        *("--check", "--seconds", "4", "--rooms", "3", "--clients", "3"),
        cwd=tmp_path,
        timeout_s=_RUNNING_S,
    )
    print(said)
    assert "Passed: every message" in said
