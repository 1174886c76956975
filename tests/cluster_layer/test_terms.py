"""What one call wants of its message is checked before anything is sent."""

import pytest

from cluster_layer.envelope import MAX_EXCLUDED
from cluster_layer.errors import InvalidMessage, InvalidName
from cluster_layer.terms import USUAL, Terms, terms_of


def test_nothing_wanted_is_usual() -> None:
    """The frequent case is one value."""
    assert terms_of(None, (), 60) is USUAL


def test_what_is_wanted_is_kept() -> None:
    """Seconds become whole milliseconds, names a set."""
    assert terms_of(1.5, ["a", "a", "b!x"], 60) == Terms(1500, frozenset({"a", "b!x"}))
    assert terms_of(60, (), 60).expiry_ms == 60_000


@pytest.mark.parametrize("expiry", [0, -1, 61, float("nan"), True, "5", 0.0001])
def test_an_impossible_expiry_is_told(expiry: float) -> None:
    """With the value, and what is allowed."""
    with pytest.raises(InvalidMessage, match=r"expiry .* 0\.001 to 60.* CONFIG expiry"):
        terms_of(expiry, (), 60)


def test_an_impossible_exclude_is_told() -> None:
    """A name alone instead of a list, what is no name, and more than an envelope may carry."""
    with pytest.raises(InvalidMessage, match="list"):
        terms_of(None, "channel", 60)
    with pytest.raises(InvalidName):
        terms_of(None, ["not a name"], 60)
    with pytest.raises(InvalidMessage, match=r"1,001 channels, 1,000"):
        terms_of(None, [f"c{n}" for n in range(MAX_EXCLUDED + 1)], 60)
