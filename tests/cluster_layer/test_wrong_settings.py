"""The table in docs/wrong-settings.md: each CONFIG in it is refused, with exactly that message."""

import ast
import re
from pathlib import Path

import pytest

from cluster_layer import ClusterChannelLayer, ConfigError
from cluster_layer.config import Config

PAGE = Path(__file__).parents[2] / "docs" / "wrong-settings.md"
ROWS = re.findall(r"^\| `(\{.*\})` \| `(.*)` \|$", PAGE.read_text("utf-8"), re.MULTILINE)


def test_the_table_is_long_and_about_every_key() -> None:
    """At least forty rows, and no key of the CONFIG without one."""
    assert len(ROWS) >= 40
    concerned = {key for config, _ in ROWS for key in ast.literal_eval(config)}
    assert set(Config.__dataclass_fields__) - {"capacity_of"} <= concerned


@pytest.mark.parametrize(("config", "message"), ROWS, ids=[config for config, _ in ROWS])
def test_it_is_refused_as_the_table_says(config: str, message: str) -> None:
    """Before anything is opened; the message names the key."""
    with pytest.raises(ConfigError) as caught:
        ClusterChannelLayer(**ast.literal_eval(config))
    assert str(caught.value) == message
    assert caught.value.definite
    assert "hunter2" not in message
    assert message.startswith("CONFIG ")
