"""Whose turn it is."""

from cluster_layer import choosing
from cluster_layer.choosing import Turns


def test_who_had_a_turn_longest_ago_is_first() -> None:
    """Whoever has been served, or asked in vain, comes last the next time."""
    turns = Turns()
    assert turns.order(["a", "b", "c"]) == ["a", "b", "c"]
    turns.take("a")
    assert turns.order(["a", "b", "c"]) == ["b", "c", "a"]
    turns.take("c")
    turns.take("b")
    assert turns.order(["a", "b", "c"]) == ["a", "c", "b"]
    assert turns.order(["b", "new", "a"]) == ["new", "a", "b"]


def test_only_so_many_turns_are_remembered() -> None:
    """A program that makes up new names for ever needs no more memory for it."""
    turns = Turns()
    for number in range(choosing.MAX_TURNS + 10):
        turns.take(str(number))
    assert len(turns._taken) == choosing.MAX_TURNS
    assert turns.order(["0", "100"]) == ["0", "100"]
