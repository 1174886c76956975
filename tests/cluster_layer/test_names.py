"""Names of channels and groups."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_layer.errors import InvalidName
from cluster_layer.names import (
    inbox_name,
    is_process_specific,
    require_channel_name,
    require_group_name,
)

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
plain_names = st.text(ALPHABET, min_size=1, max_size=100)


@given(plain_names)
def test_every_name_of_the_alphabet_is_a_channel_and_a_group(name: str) -> None:
    """Letters, digits, periods, hyphens and underscores, 1 to 100 of them, are allowed."""
    require_channel_name(name)
    require_group_name(name)


@pytest.mark.parametrize("name", ["a!", "a!b", "specific.1f!2-e_3.", "a?", "a?b", "x" * 99 + "!"])
def test_one_type_character_makes_a_special_channel(name: str) -> None:
    """One `!` or one `?`, after something, with or without a local part."""
    require_channel_name(name)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "1 to 100"),
        ("x" * 101, "100 are allowed"),
        ("=+135!", "use only"),
        ("a b", "use only"),
        ("a\n", "use only"),
        ("a!b\n", "use only"),
        ("caf\u00e9", "use only"),
        ("a!\u0663", "use only"),
        ("a:b", "use only"),
        ("!a", "before '!'"),
        ("?", "before '?'"),
        ("a!b!c", "at most"),
        ("a?b?", "at most"),
        ("a?b!c", "at most"),
        (b"bytes", "bytes"),
        (None, "NoneType"),
        (17, "int"),
        (["a"], "list"),
    ],
)
def test_a_bad_channel_name_is_refused_with_its_rule(name: object, rule: str) -> None:
    """The error shows the name and says which rule it breaks."""
    with pytest.raises(InvalidName, match=rule) as caught:
        require_channel_name(name)
    assert "channel name" in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["", "a!b", "a!", "a?b", "x" * 101, "a b", "a\n", None, b"a"])
def test_a_bad_group_name_is_refused(name: object) -> None:
    """A group has no type character and otherwise obeys the rules of channels."""
    with pytest.raises(InvalidName, match="group name"):
        require_group_name(name)


@given(plain_names, plain_names)
def test_the_inbox_of_a_channel_is_its_name_up_to_the_mark(inbox: str, local: str) -> None:
    """All channels of one process and prefix share it; a normal channel is its own."""
    assert is_process_specific(f"{inbox}!{local}")
    assert inbox_name(f"{inbox}!{local}") == f"{inbox}!"
    assert not is_process_specific(inbox)
    assert inbox_name(inbox) == inbox
