"""send, receive, tail and probe as programs of their own, on real shards."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.deployment import BINARIES, Deployment, deployed

PROGRAM = str(Path(sys.executable).with_name("cluster-layer"))


@pytest.fixture(params=BINARIES)
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    with deployed(tmp_path, binary=request.param) as made:
        yield made


def run(
    deployment: Deployment, *arguments: str, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *arguments, "--store", deployment.store],
        capture_output=True,
        text=True,
        input=stdin,
        timeout=60,
        check=False,
    )


@contextmanager
def tailing(deployment: Deployment, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`tail` once it has joined the group."""
    process = subprocess.Popen(
        [PROGRAM, "tail", *arguments, "--store", deployment.store],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert "joined" in process.stderr.readline()
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_what_was_sent_is_received_once(deployment: Deployment) -> None:
    """In order, bytes included; afterwards the channel is empty, and that is an exit code."""
    message = '{"type": "x", "data": {"$bytes": "AP8="}, "more": [1, null, "ü"]}'
    sent = run(deployment, "send", "jobs", message)
    second = run(deployment, "send", "jobs", "-", "--json", stdin='{"type": "y"}')
    received = run(deployment, "receive", "jobs", "--count", "2")
    empty = run(deployment, "receive", "jobs", "--timeout", "0.3")
    assert sent.returncode == second.returncode == received.returncode == 0, sent.stderr
    where = json.loads(second.stdout)
    assert where["name"] == "jobs"
    assert f"shard {where['shard']}" in sent.stdout
    assert received.stdout.splitlines() == [message, '{"type": "y"}']
    assert (empty.returncode, empty.stdout) == (7, "")


def test_tail_prints_what_a_group_gets(deployment: Deployment) -> None:
    """Until there were as many messages as wanted."""
    with tailing(deployment, "room", "--count", "2", "--timeout", "60") as tail:
        for number in range(2):
            sent = run(deployment, "send", "--group", "room", json.dumps({"n": number}))
            assert sent.returncode == 0, sent.stderr
        output, errors = tail.communicate(timeout=60)
        assert (tail.returncode, errors) == (0, "")
    assert [json.loads(line)["n"] for line in output.splitlines()] == [0, 1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_tail_ends_when_it_is_told_to(deployment: Deployment, number: signal.Signals) -> None:
    """Without an error, and without leaving a process behind in status."""
    with tailing(deployment, "room") as tail:
        tail.send_signal(number)
        _, errors = tail.communicate(timeout=30)
        assert (tail.returncode, errors) == (0, "")
    status = json.loads(run(deployment, "status", "--json").stdout)
    assert status["processes"] == []


def test_prefix_and_keys_must_be_the_site_s(deployment: Deployment, tmp_path: Path) -> None:
    """Another prefix is another world; keys come from a file and are shown nowhere."""
    keys = tmp_path / "keys"
    keys.write_text("s3cret-new\ns3cret-old\n")
    old = tmp_path / "old"
    old.write_text("s3cret-old\n")
    none = tmp_path / "none"
    none.write_text("\n")
    arguments = ["--prefix", "site", "--keys-file"]
    outputs = [
        run(deployment, "send", "jobs", '{"n": 1}', *arguments, str(old)),
        run(deployment, "receive", "jobs", "--timeout", "0.3"),
        run(deployment, "receive", "jobs", *arguments, str(keys)),
        run(deployment, "receive", "jobs", *arguments, str(none)),
    ]
    assert [one.returncode for one in outputs] == [0, 7, 0, 2]
    assert outputs[2].stdout == '{"n": 1}\n'
    assert not any("s3cret" in one.stdout + one.stderr for one in outputs)


def test_a_full_channel_and_wrong_messages(deployment: Deployment) -> None:
    """Refused is 1, wrong usage is 2; nothing is sent."""
    assert run(deployment, "send", "jobs", "{}", "--capacity", "1").returncode == 0
    full = run(deployment, "send", "jobs", "{}", "--capacity", "1")
    assert (full.returncode, "full" in full.stderr) == (1, True)
    for name, message in (("jobs", "[1]"), ("jobs", "{"), ("two words", "{}")):
        wrong = run(deployment, "send", name, message)
        assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1), wrong.stderr
    assert run(deployment, "receive", "jobs").stdout == "{}\n"
    assert run(deployment, "receive", "jobs", "--timeout", "0.3").returncode == 7


def test_probe_goes_through_every_shard(deployment: Deployment) -> None:
    """With one lost, --need any still passes: it is no reason to restart a process."""
    probed = run(deployment, "probe", "--json")
    assert probed.returncode == 0, probed.stdout + probed.stderr
    assert [one["shard"] for one in json.loads(probed.stdout)] == ["a", "b"]
    deployment.servers["b"].kill()
    lost = run(deployment, "probe", "--json", "--timeout", "5")
    tolerant = run(deployment, "probe", "--need", "any", "--timeout", "5")
    assert (lost.returncode, tolerant.returncode) == (5, 0)
    assert [one["reason"] is None for one in json.loads(lost.stdout)] == [True, False]
    assert "b" in tolerant.stdout
