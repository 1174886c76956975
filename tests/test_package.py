"""What is built is what is installed: data files, entry point, nothing that does not belong."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parents[1]
_NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "target")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist and a wheel made from it, without a network: the backend is installed here."""
    source = tmp_path_factory.mktemp("source") / "project"
    shutil.copytree(_REPOSITORY, source, ignore=_NOT_COPIED)
    outcome = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", str(source)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return source / "dist"


@pytest.fixture(scope="module")
def wheel_names(built: Path) -> set[str]:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_source_file_is_in_the_wheel(wheel_names: set[str]) -> None:
    """Modules, Lua scripts and py.typed of all packages are installed."""
    expected = {
        path.relative_to(_REPOSITORY).as_posix()
        for package in ("cluster_layer", "topology", "chaos")
        for pattern in ("*.py", "*.lua", "py.typed")
        for path in (_REPOSITORY / package).rglob(pattern)
    }
    assert {f"{package}/py.typed" for package in ("cluster_layer", "topology")} <= expected
    assert any(name.endswith(".lua") for name in expected)
    assert expected - wheel_names == set()


def test_nothing_else_is_installed(wheel_names: set[str]) -> None:
    """Tests, examples and scripts stay out of site-packages."""
    tops = {name.partition("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "cluster_layer",
        "topology",
        "chaos",
    }


def test_the_console_script_is_declared(built: Path) -> None:
    """`cluster-layer` is installed as a command."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        entry_points = archive.read(name).decode()
    assert "cluster-layer = cluster_layer.cli.main:main" in entry_points


def test_the_sdist_holds_what_a_developer_needs(built: Path) -> None:
    """Tests, scripts, examples and documents travel with the source."""
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "LICENSE",
        "CHANGELOG.md",
        "scripts/test",
        "scripts/demo",
        "cluster_layer/demo/static/chat.js",
        "tests/conftest.py",
        "cluster_layer/py.typed",
        "examples/rust-client/Cargo.lock",
        "examples/rust-client/src/main.rs",
    } <= names
