"""What scripts/test and .ci/run give back: green if every check is, and only then."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parents[1]

# Stands for the virtual environment's Python: each check ends as the variable named after it says.
_CHECKS = """#!/bin/sh
[ "$1" = -m ] || exit 0
case $2 in
    mypy) sleep "${MYPY_S:-0}"; echo "said by mypy"; exit "${MYPY:-0}" ;;
    pytest) echo "said by pytest"; exit "${PYTEST:-0}" ;;
    ruff) exit "${RUFF:-0}" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The scripts beside a virtual environment whose checks do nothing but end."""
    for name in ("scripts/test", "scripts/common.sh", ".ci/run"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(_REPOSITORY / name, tmp_path / name)
    for name in ("setup.py", "pyproject.toml"):
        (tmp_path / name).touch()
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(_CHECKS)
    python.chmod(0o755)
    return tmp_path


def _run(checkout: Path, script: str, **outcomes: str) -> tuple[int, str]:
    ran = subprocess.run(
        [checkout / script],
        env={**os.environ, "DEPLOY_CHECK": "0", **outcomes},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ran.returncode, ran.stdout


@pytest.mark.parametrize("script", ["scripts/test", ".ci/run"])
@pytest.mark.parametrize("mypy_s", ["0", "1"], ids=["mypy-first", "pytest-first"])
def test_all_checks_pass(checkout: Path, script: str, mypy_s: str) -> None:
    """Whichever ends first, nothing remains to be ended, and that is no failure."""
    code, said = _run(checkout, script, MYPY_S=mypy_s)
    assert code == 0
    assert said.splitlines()[-1] == "said by pytest"


@pytest.mark.parametrize("script", ["scripts/test", ".ci/run"])
@pytest.mark.parametrize("check", ["RUFF", "MYPY", "PYTEST"])
def test_one_check_fails(checkout: Path, script: str, check: str) -> None:
    """The script fails with it, and mypy is quoted only where it has found something."""
    code, said = _run(checkout, script, **{check: "1"})
    assert code == 1
    assert ("said by mypy" in said) is (check == "MYPY")
