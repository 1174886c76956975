"""The documentation builds as a site, and nothing in it points nowhere."""

import subprocess
import sys
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
