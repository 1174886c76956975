"""Messages as JSON: every message of the specification comes back as it was."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_layer.cli.message_json import message_from, text_of
from cluster_layer.errors import InvalidMessage

texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False)
    | texts | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(texts.filter(lambda k: k[:1] != "$"), inner),
)  # fmt: skip


@given(st.dictionaries(texts.filter(lambda k: k[:1] != "$"), values))
def test_a_message_comes_back(message: dict[str, object]) -> None:
    """Bytes and infinities too; always on one line."""
    text = text_of(message)
    assert "\n" not in text
    assert message_from(text) == message


def test_not_a_number_comes_back() -> None:
    """Which is equal to nothing."""
    found = message_from(text_of({"f": math.nan}))
    assert math.isnan(found["f"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "no JSON"),
        ("[]", "object"),
        ('{"$bytes": "AA=="}', "itself"),
        ('{"a": {"$bytes": "?"}}', "base64"),
        ('{"a": {"$bytes": 1}}', "base64"),
    ],
)
def test_what_is_no_message(text: str, said: str) -> None:
    """The error says what is wrong."""
    with pytest.raises(InvalidMessage, match=said):
        message_from(text)
