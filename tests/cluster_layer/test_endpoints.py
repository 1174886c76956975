"""Every notation of a host, and real connections made from them."""

import shutil
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
import redis.exceptions
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cluster_layer.embedded import RedisServer, free_port
from cluster_layer.endpoints import Endpoint, endpoints_of
from cluster_layer.errors import ConfigError
from tests.support.sentinels import MASTER_NAME, PASSWORD, SentinelServer
from tests.support.waiting import eventually
from topology.model import Shard

SENTINELS = [("S2", 26379), ("s1", "26379")]


@pytest.mark.parametrize(
    ("notations", "identity"),
    [
        (
            [
                "redis://h",
                "redis://H:6379/0",
                "rediss://user:pw@h:6379?db=0",
                ("h", 6379),
                ["h", "6379"],
                {"host": "h"},
                {"host": "h", "port": "6379", "db": None, "password": "pw", "ssl": True},
                {"host": "h", "connection_class": redis.asyncio.SSLConnection},
                {"address": "rediss://:pw@h/0", "max_connections": 5, "ssl_cert_reqs": None},
            ],
            "h:6379",
        ),
        (["redis://h:7/3", "redis://h:7?db=3", {"host": "h", "port": 7, "db": "3"}], "h:7/3"),
        (["redis://[::1]:7", ("::1", 7)], "[::1]:7"),
        (["unix:///run/a.sock", {"path": "/run/a.sock"}], "/run/a.sock"),
        (
            ["unix://u:pw@/run/a b.sock?db=2", {"path": "/run/a b.sock", "db": 2}],
            "/run/a%20b.sock?db=2",
        ),
        (
            [
                {"sentinels": SENTINELS, "master_name": "m"},
                {"sentinels": SENTINELS[::-1], "master_name": "m", "db": 0, "password": "pw"},
            ],
            "s1:26379,s2:26379/m",
        ),
        ([{"sentinels": SENTINELS, "master_name": "m", "db": 4}], "s1:26379,s2:26379/m/4"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_id_is_the_same_for_every_notation(notations: list[Any], identity: str) -> None:
    """One server and database has one id, and it is a shard id that a topology takes."""
    endpoints = [Endpoint.from_host(notation) for notation in notations]
    assert {endpoint.id for endpoint in endpoints} == {identity}
    for endpoint in endpoints:
        assert Shard(endpoint.id, endpoint.redacted).id == identity


def test_the_same_server_twice_is_refused() -> None:
    """Two shards on one database would share their keys."""
    with pytest.raises(ConfigError, match=r"hosts\[2\]: redis://a:6379/1 is also hosts\[0\]"):
        endpoints_of(["redis://a/1", "redis://b", {"host": "A", "db": 1}])


def test_endpoints_differ_by_their_secrets() -> None:
    """A changed password is a reason to connect again, though the id stays."""
    one, other = Endpoint.from_host("redis://:a@h"), Endpoint.from_host("redis://:b@h")
    assert one.id == other.id
    assert one != other
    assert one == Endpoint.from_host("redis://:a@h")
    assert len({one, Endpoint.from_host("redis://:a@h")}) == 1


def _new_connection(endpoint: Endpoint, connect_timeout_s: float = 2.0) -> Any:
    # Not AbstractConnection: redis-py annotates it in part only.
    return endpoint.new_connection(connect_timeout_s)


async def _ping(endpoint: Endpoint) -> Any:
    connection = _new_connection(endpoint)
    await _ping_on(connection)
    return connection


async def _ping_on(connection: Any) -> None:
    await connection.connect()
    await connection.send_command("PING")
    assert await connection.read_response() == b"PONG"


def _ping_blocking(endpoint: Endpoint) -> Any:
    """The same without asyncio."""
    connection: Any = endpoint.new_blocking_connection(2.0)
    connection.connect()
    connection.send_command("PING")
    assert connection.read_response() == b"PONG"
    return connection


async def test_retries_and_timeouts_of_redis_are_off(redis_server: RedisServer) -> None:
    """What a configuration says about them is replaced: each would break a promise."""
    host = {
        "address": redis_server.url,
        "socket_timeout": 0.001,
        "retry_on_timeout": True,
        "retry_on_error": [OSError],
        "health_check_interval": 1,
        "decode_responses": True,
        "protocol": 3,
    }
    connection = await _ping(Endpoint.from_host(host))
    assert connection.socket_timeout is None
    assert connection.socket_connect_timeout == 2.0
    assert connection.retry._retries == 0
    assert connection.health_check_interval == 0
    assert connection.protocol == 2
    await connection.disconnect()
    blocking = _ping_blocking(Endpoint.from_host(host))
    assert blocking.socket_timeout == blocking.socket_connect_timeout == 2.0
    assert blocking.retry._retries == 0
    assert blocking.health_check_interval == 0
    assert blocking.protocol == 2
    blocking.disconnect()


def test_a_tls_connection_class_asks_for_tls() -> None:
    """The other way to write ssl=True that redis-py has."""
    host = {"host": "h", "connection_class": redis.asyncio.SSLConnection, "ssl_cert_reqs": None}
    assert Endpoint.from_host(host) == Endpoint.from_host(
        {"host": "h", "ssl": True, "ssl_cert_reqs": None}
    )


async def test_password_database_and_unix_socket_work() -> None:
    """A server with a password, reached by TCP and by its socket, on another database."""
    with RedisServer(password="p@ss/word", unix_socket=True) as server:
        hosts = [
            f"{server.url}/5",
            {"host": "127.0.0.1", "port": server.port, "password": "p@ss/word", "db": 5},
            {"address": f"redis://127.0.0.1:{server.port}/5", "password": "p@ss/word"},
            f"{server.unix_url}?db=5",
            {"path": str(server.unix_socket), "password": "p@ss/word", "db": 5},
        ]
        for host in hosts:
            connection = await _ping(Endpoint.from_host(host))
            await connection.send_command("CLIENT", "INFO")
            assert b" db=5 " in await connection.read_response()
            await connection.disconnect()
            blocking = _ping_blocking(Endpoint.from_host(host))
            blocking.send_command("CLIENT", "INFO")
            assert b" db=5 " in blocking.read_response()
            blocking.disconnect()
        wrong = _new_connection(Endpoint.from_host(("127.0.0.1", server.port)))
        # Some versions of Redis refuse the first commands of connect(), others wait for a real one.
        with pytest.raises(redis.exceptions.AuthenticationError):
            await _ping_on(wrong)
        await wrong.disconnect()


def _certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1))
    builder = builder.not_valid_after(now + timedelta(days=1)).add_extension(names, critical=False)
    certificate, private = directory / "cert.pem", directory / "key.pem"
    signed = builder.sign(key, hashes.SHA256())
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate, private


async def test_tls_works_and_verifies(tmp_path: Path) -> None:
    """rediss:// and ssl=True encrypt; an unknown certificate is refused unless told otherwise."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("the embedded redis-server has no TLS and there is no other on PATH")
    certificate, key = _certificate(tmp_path)
    port = free_port()
    options: dict[str, str | int] = {
        "tls-port": port,
        "tls-cert-file": str(certificate),
        "tls-key-file": str(key),
        "tls-auth-clients": "no",
    }
    with RedisServer(binary=binary, options=options):
        url = f"rediss://127.0.0.1:{port}"
        hosts: list[object] = [
            f"{url}?ssl_ca_certs={certificate}",
            {"address": url, "ssl_ca_certs": str(certificate)},
            {"address": url, "ssl_cert_reqs": None, "ssl_check_hostname": False},
            {"host": "127.0.0.1", "port": port, "ssl": True, "ssl_ca_certs": str(certificate)},
        ]
        for host in hosts:
            await (await _ping(Endpoint.from_host(host))).disconnect()
            _ping_blocking(Endpoint.from_host(host)).disconnect()
        with pytest.raises(redis.exceptions.ConnectionError, match="certificate"):
            _ping_blocking(Endpoint.from_host(url))
        with pytest.raises(redis.exceptions.ConnectionError) as refused:
            await _new_connection(Endpoint.from_host(url)).connect()
        assert isinstance(refused.value.__cause__ or refused.value.__context__, ssl.SSLError)


async def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    """Also where redis-py would take it; and a shard can want a certificate of ours."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("the embedded redis-server has no TLS and there is no other on PATH")
    certificate, key = _certificate(tmp_path)
    port = free_port()
    options: dict[str, str | int] = {
        "tls-port": port,
        "tls-cert-file": str(certificate),
        "tls-key-file": str(key),
        "tls-ca-cert-file": str(certificate),
        "tls-auth-clients": "yes",
    }
    with RedisServer(binary=binary, options=options):
        ours = f"ssl_ca_certs={certificate}&ssl_certfile={certificate}&ssl_keyfile={key}"
        good = f"rediss://127.0.0.1:{port}?{ours}"
        await (await _ping(Endpoint.from_host(good))).disconnect()
        _ping_blocking(Endpoint.from_host(good)).disconnect()
        with pytest.raises(redis.exceptions.ConnectionError):  # no certificate of ours
            _ping_blocking(
                Endpoint.from_host(f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}")
            )
        # The certificate is for 127.0.0.1: this is the same server by another name.
        with pytest.raises(redis.exceptions.ConnectionError, match="certificate"):
            _ping_blocking(Endpoint.from_host(f"rediss://localhost:{port}?{ours}"))


async def test_sentinel_leads_to_the_master_of_the_moment() -> None:
    """Each connect() asks anew, dead Sentinels do not delay it, replicas are refused."""
    with (
        RedisServer(password="pw", options={"masterauth": "pw"}) as master,
        SentinelServer(master, "pw") as sentinel,
        RedisServer(
            password="pw", options={"masterauth": "pw", "replicaof": f"127.0.0.1 {master.port}"}
        ) as replica,
    ):
        endpoint = Endpoint.from_host(
            {
                "sentinels": [("127.0.0.1", free_port()), ("127.0.0.1", sentinel.port)],
                "master_name": MASTER_NAME,
                "sentinel_kwargs": {"password": PASSWORD},
                "password": "pw",
                "db": 2,
            }
        )
        connection = await _ping(endpoint)
        assert connection.port == master.port
        await connection.disconnect()
        blocking = _ping_blocking(endpoint)
        assert blocking.port == master.port
        blocking.disconnect()
        sentinel.wait_for_replica()
        sentinel.fail_over()
        await connection.connect()
        assert connection.port == replica.port
        await connection.disconnect()
        blocking.connect()
        assert blocking.port == replica.port
        blocking.disconnect()


async def test_no_sentinel_is_a_connection_error() -> None:
    """A reconnect with backoff treats it like any other server that is away."""
    host = {"sentinels": [("127.0.0.1", free_port())], "master_name": "m"}
    with pytest.raises(redis.exceptions.ConnectionError, match="no Sentinel names a master 'm'"):
        await _new_connection(Endpoint.from_host(host), 0.5).connect()


async def test_a_sentinel_that_names_a_replica_is_not_believed() -> None:
    """For a moment after a failover the old master is still named, and must not be written to."""
    with RedisServer() as master, SentinelServer(master) as sentinel, RedisServer() as other:
        endpoint = Endpoint.from_host(
            {
                "sentinels": [("127.0.0.1", sentinel.port)],
                "master_name": MASTER_NAME,
                "sentinel_kwargs": {"password": PASSWORD},
            }
        )
        with redis.Redis(port=master.port) as client:
            client.replicaof("127.0.0.1", str(other.port))
            eventually(lambda: client.info("replication")["role"] == "slave")
        connection = _new_connection(endpoint)
        with pytest.raises(redis.exceptions.ConnectionError, match="is no master"):
            await connection.connect()
        assert not connection.is_connected
