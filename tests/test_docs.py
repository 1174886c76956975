"""The documentation builds as a site, and nothing in it points nowhere."""

import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """A broken link, an anchor that is gone or a docstring that can't be read is an error."""
    outcome = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=_REPOSITORY,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert (tmp_path / "operations.html").exists()
    transitions = (tmp_path / "transitions.html").read_text(encoding="utf-8")
    assert "<svg" in transitions
    reference = (tmp_path / "api" / "layer.html").read_text(encoding="utf-8")
    assert "ClusterChannelLayer" in reference


def test_the_map_names_every_module_and_none_that_is_gone() -> None:
    """docs/architecture.md has a line for each module of the layer, or for its folder."""
    text = (_REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    places = set(re.findall(r"[\w*]+\.py\b|(?<=`)[\w/-]+/(?=`)", text)) - {"cli/"}
    files = [
        path.relative_to(_REPOSITORY)
        for package in ("topology", "cluster_layer", "chaos", "examples", "tests", "benchmarks")
        for path in (_REPOSITORY / package).rglob("*.py")
        if not path.name.startswith("__")
    ]

    def tells_of(place: str, path: Path) -> bool:
        if place.endswith("/"):
            return f"/{place}" in f"/{path.as_posix()}"
        return fnmatch(path.name, place)

    modules = [path for path in files if path.parts[0] in ("topology", "cluster_layer")]
    assert [p for p in modules if not any(tells_of(place, p) for place in places)] == []
    gone = [place for place in places if not any(tells_of(place, path) for path in files)]
    theirs = {"manage.py"}  # of every Django site
    assert [place for place in gone if place.endswith(".py") and place not in theirs] == []
