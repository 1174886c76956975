"""The programs without an event loop run by the commands of their README."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster_layer.embedded import RedisServer, free_port, start_shards
from cluster_layer.processes import ChildProcess
from cluster_layer.sync import SyncChannelLayer
from tests.support.layers import DEADLINE_S, numbered
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
README = (ROOT / "examples" / "background" / "README.md").read_text("utf-8")
JOBS = 30


class Site:
    """The shards of one site, a listener on the group `results`, and its programs."""

    def __init__(self, servers: list[RedisServer], directory: Path) -> None:
        self.servers = servers
        self.directory = directory
        hosts = [server.url for server in servers]
        self.environment = {
            **os.environ,
            "SHARDS": ",".join(hosts),
            "DJANGO_SETTINGS_MODULE": "examples.background.settings",
            "BROKER_DIRECTORY": str(directory / "broker"),
            "PYTHONUNBUFFERED": "1",
        }
        self.layer = SyncChannelLayer(hosts=hosts, prefix="background", capacity=1000)
        self.channel = self.layer.new_channel()
        self.layer.group_add("results", self.channel)

    def run(self, *arguments: str, status: int = 0, stdin: str | None = None) -> str:
        """Run a program of the README to its end; what it says."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    @contextmanager
    def running(self, *arguments: str, name: str = "program") -> Iterator[Callable[[], str]]:
        """Run a program until the block ends; gives what reads its output so far."""
        output = self.directory / f"{name}.log"
        process = ChildProcess(
            [sys.executable, *arguments], output=output, cwd=ROOT, env=self.environment
        )
        try:
            yield lambda: output.read_text("utf-8") if output.exists() else ""
        finally:
            process.stop()

    def received(self, count: int) -> list[dict[str, Any]]:
        return [self.layer.receive(self.channel, DEADLINE_S) for _ in range(count)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with start_shards(3) as servers:
        site = Site(servers, tmp_path)
        yield site
        site.layer.close()


def _of_the_readme(command: str) -> Sequence[str]:
    """The words of a command of the README, without its `python`."""
    assert f"`python {command}" in README or f"\npython {command}" in README, command
    return command.split()


def test_a_cron_script_tells_a_group(site: Site) -> None:
    """And its exit code says that it has, or has not."""
    module = _of_the_readme("-m examples.background.cron results")
    site.run(*module, "the backup is done")
    assert site.received(1) == [{"type": "notice", "text": "the backup is done"}]
    for server in site.servers:
        server.kill()
    assert "nothing was executed" in site.run(*module, "lost", status=1)


def test_a_wsgi_view_tells_a_group(site: Site) -> None:
    """A thread for each request; the answer says what became of it."""
    port = free_port()
    module = _of_the_readme("-m examples.background.wsgi")
    with site.running(*module, str(port)) as output:
        eventually(lambda: "http://" in output())
        url = f"http://127.0.0.1:{port}/results"
        for number in range(20):
            with urllib.request.urlopen(url, f"text=hello{number}".encode()) as answer:
                assert answer.status == 202
        texts = [message["text"] for message in site.received(20)]
        assert texts == [f"hello{number}" for number in range(20)]
        for server in site.servers:
            server.kill()
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(url, b"text=lost")


def test_a_celery_worker_tells_a_group(site: Site) -> None:
    """The layer was made before the pool forked; every task's message comes once."""
    assert "celery -A examples.background.tasks worker -c 4" in README
    worker = ("-m", "celery", "-A", "examples.background.tasks", "worker", "-c", "4")
    with site.running(*worker, "--loglevel", "info") as output:
        eventually(lambda: " ready." in output(), 60)
        site.run(*_of_the_readme("-m examples.background.tasks"), str(JOBS))
        done = site.received(JOBS)
    assert sorted(message["number"] for message in done) == list(range(JOBS))
    assert all(message["square"] == message["number"] ** 2 for message in done)


def test_a_prefork_pool_does_every_job_once(site: Site) -> None:
    """Two channels, four processes, one result per job."""
    said = site.run(*_of_the_readme("-m examples.background.prefork"), str(JOBS))
    assert f"{JOBS} jobs done, each once" in said


def test_runworker_works_in_many_processes(site: Site) -> None:
    """Each message of a normal channel goes to one worker, and all workers get some."""
    words = _of_the_readme("-m django runworker jobs")
    with ExitStack() as stack:
        for number in range(3):
            stack.enter_context(site.running(*words, name=f"worker{number}"))
        orders = [{"type": "job.run", "number": number} for number in range(90)]
        sent = site.run(
            *_of_the_readme("-m django channel_send jobs"),
            stdin="\n".join(map(json.dumps, orders)),
        )
        assert "sent: 90" in sent
        done = site.received(90)
        assert sorted(message["number"] for message in done) == list(range(90))
        # A quick worker may do nearly all; but none is left out for ever.
        processes = {message["by"] for message in done}

        def all_have_worked() -> bool:
            for number in range(30):
                site.layer.send("jobs", {"type": "job.run", "number": number})
            processes.update(message["by"] for message in site.received(30))
            return len(processes) == 3

        eventually(all_have_worked, 60)


def test_channel_send_and_channel_tail(site: Site) -> None:
    """From one shell to another; a message of a channel that is taken is gone."""
    words = [*_of_the_readme("-m django channel_tail results"), "other", "--count", "2"]
    with site.running(*words) as output:
        eventually(lambda: "listening" in output(), 60)
        site.run("-m", "django", "channel_send", "--group", "results", '{"type": "a", "n": 1}')
        site.layer.group_send("other", {"type": "b", "raw": b"bytes"})
        eventually(lambda: output().count("{") >= 4)
    lines = [json.loads(line) for line in output().splitlines() if line.startswith("{")]
    assert lines == [
        {"from": "results", "message": {"type": "a", "n": 1}},
        {"from": "other", "message": {"type": "b", "raw": "Ynl0ZXM="}},
    ]
    site.layer.send("orders", numbered(1))
    tail = ("-m", "django", "channel_tail", "--take", "orders", "--timeout", "5", "--count", "1")
    assert '"n": 1' in site.run(*tail)
    assert site.layer.receive_many(["orders"]) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("jobs", "{"), "no JSON"),
        (("jobs", "[1]"), 'a JSON object with a "type"'),
        (("jobs", '{"n": 1}'), 'a JSON object with a "type"'),
        (("jobs", '{"type": "a"}', "nonsense"), "no JSON"),
        (("a channel", '{"type": "a"}'), "after 0 messages"),
        (("jobs", '{"type": "a"}', "--layer", "other"), "has no 'other'"),
    ],
)
def test_channel_send_says_what_is_wrong(site: Site, arguments: tuple[str, ...], said: str) -> None:
    """And sends nothing."""
    assert said in site.run("-m", "django", "channel_send", *arguments, status=1)
    assert site.layer.receive_many(["jobs"]) == (None, None)


def test_a_line_that_is_no_message_ends_what_was_sent_before_it(site: Site) -> None:
    """How many messages that were is told."""
    lines = '{"type": "a", "n": 1}\n\n{"type": "a", "n": 2}\nnonsense\n{"type": "a", "n": 3}\n'
    said = site.run("-m", "django", "channel_send", "jobs", stdin=lines, status=1)
    assert "after 2 messages: this is no JSON" in said
    received = [site.layer.receive_many(["jobs"])[1] for _ in range(3)]
    assert [message and message["n"] for message in received] == [1, 2, None]
