"""The root of the error tree."""

import inspect
import pickle
import re

import pytest

from topology import errors
from topology.errors import (
    ClusterError,
    StaleEpoch,
    StoreUnavailable,
    TopologyError,
    TopologyInvalid,
    TopologyTooLarge,
)


def test_the_docstring_draws_the_whole_tree() -> None:
    """Each class stands in the drawing, at the depth of its place in the tree."""
    drawn = re.findall(r"^    ([ │├└─]*)([A-Z]\w+)  ", inspect.getdoc(errors) or "", re.MULTILINE)
    actual = {n: k for n, k in vars(errors).items() if isinstance(k, type)}
    assert {name for _, name in drawn} == actual.keys()
    for margin, name in drawn:
        ancestors = [kind for kind in actual[name].__mro__[1:] if issubclass(kind, ClusterError)]
        assert len(margin) == 4 * len(ancestors), name


@pytest.mark.parametrize(
    "error",
    [
        TopologyInvalid("wrong"),
        TopologyTooLarge(5, 4),
        StaleEpoch(None, 3),
        StaleEpoch(4, None),
        StoreUnavailable("gone"),
        StoreUnavailable("gone", definite=False),
    ],
)
def test_an_error_crosses_processes_whole(error: TopologyError) -> None:
    """Pickled and back, it says the same and knows the same."""
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(copy), str(copy)) == (type(error), str(error))
    assert vars(copy) == vars(error)
    assert copy.definite is error.definite


def test_only_a_lost_answer_is_indefinite() -> None:
    """By default an error means that nothing has happened."""
    assert ClusterError.definite
    assert StoreUnavailable("gone").definite
    assert not StoreUnavailable("gone", definite=False).definite
