"""The error tree of the channel layer."""

import os
import pickle
import subprocess
import sys

import pytest
from channels import exceptions as channels_exceptions

from cluster_layer import errors
from topology.errors import ClusterError

EXAMPLES = [
    errors.ConfigError("CONFIG expiry"),
    errors.InvalidName("channel name"),
    errors.NotOurChannel("specific.x!"),
    errors.InvalidMessage("message['a']"),
    errors.MessageTooLarge(2_000_000, 1_000_000),
    errors.ChannelFull("orders", 100, 100),
    errors.ShardUnavailable("a:6379", "connection refused"),
    errors.DeliveryUnknown("a:6379", "no reply within 2 s"),
    errors.AnswersMissing("lobby", 1, 4, 2.0, frozenset({"orders"})),
    errors.MalformedEnvelope("version 2"),
    errors.DecryptFailed("no key"),
    errors.LayerClosed("the layer was closed"),
]


def test_every_error_of_the_module_is_in_the_tree() -> None:
    """All share one root, and none is missing in the examples here."""
    classes = {value for value in vars(errors).values() if isinstance(value, type)}
    assert classes - {ClusterError} == {type(example) for example in EXAMPLES}
    assert all(issubclass(kind, ClusterError) for kind in classes)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_only_an_unknown_delivery_is_not_definite(error: ClusterError) -> None:
    """`definite` alone tells whether an operation may have happened."""
    assert error.definite is not isinstance(error, errors.DeliveryUnknown)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling(error: ClusterError) -> None:
    """Celery and multiprocessing carry errors between processes with all their fields."""
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own bytes
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_full_and_too_large_are_what_channels_code_catches() -> None:
    """`except ChannelFull` written for any other layer keeps working."""
    full = errors.ChannelFull("orders", 101, 100)
    large = errors.MessageTooLarge(1_000_001, 1_000_000)
    assert isinstance(full, channels_exceptions.ChannelFull)
    assert isinstance(large, channels_exceptions.MessageTooLarge)
    assert (full.channel, full.depth, full.limit) == ("orders", 101, 100)
    assert (large.size, large.limit) == (1_000_001, 1_000_000)
    assert "orders" in str(full)
    assert "1,000,000" in str(large)
    assert "message_size_limit" in str(large)


def test_mistakes_of_the_caller_are_the_builtin_errors_too() -> None:
    """The specification and other layers raise TypeError, ValueError and AssertionError there."""
    assert issubclass(errors.ConfigError, ValueError)
    assert issubclass(errors.InvalidName, TypeError)
    assert issubclass(errors.InvalidMessage, TypeError)
    assert issubclass(errors.NotOurChannel, AssertionError)


def test_importing_the_errors_needs_no_django_settings() -> None:
    """A plain program catches these errors without configuring Django."""
    program = (
        "import sys, cluster_layer.errors\n"
        "from django.conf import settings\n"
        "sys.exit(settings.configured)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run([sys.executable, "-c", program], check=False, env=environment)
    assert done.returncode == 0
