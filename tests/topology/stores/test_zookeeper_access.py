"""TLS and SASL with real ZooKeeper servers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster_layer.embedded import free_port
from tests.support.zookeeper import ZooKeeperServer
from tests.topology.stores.certificates import Authority
from tests.topology.strategies import CLUSTER
from topology.errors import StoreUnavailable
from topology.model import Shard
from topology.planning import initial_topology
from topology.ports import OperatorStore, TopologyStore

FIRST = initial_topology(
    [Shard("a", "redis://a:6379"), Shard("b", "redis://b:6379")], cluster=CLUSTER
)
NETTY_CODEC = Path("/usr/share/java/netty-codec.jar")  # Debian's package does not load it by itself


@dataclass
class TlsSite:
    """A server for 127.0.0.1 that demands client certificates, and who may sign them."""

    authority: Authority
    port: int
    client: tuple[Path, Path]

    def options(self, **changes: object) -> dict[str, object]:
        certificate, key = self.client
        tls = {"ca": str(self.authority.ca), "cert": str(certificate), "key": str(key)}
        return {"timeout_s": 3.0, "tls": tls | changes}


@pytest.fixture(scope="module")
def tls_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsSite]:
    if not NETTY_CODEC.exists():
        pytest.skip(f"no {NETTY_CODEC} here, which ZooKeeper needs for TLS")
    authority = Authority(tmp_path_factory.mktemp("authority"))
    certificate, key = authority.issue("server", "127.0.0.1")
    key.write_bytes(key.read_bytes() + certificate.read_bytes())
    port = free_port()
    configuration = [
        f"secureClientPort={port}",
        "secureClientPortAddress=127.0.0.1",
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
        f"ssl.keyStore.location={key}",
        "ssl.keyStore.type=PEM",
        f"ssl.trustStore.location={authority.ca}",
        "ssl.trustStore.type=PEM",
        "ssl.clientAuth=need",
    ]
    with ZooKeeperServer(extra_config=configuration, extra_jars=[str(NETTY_CODEC)]):
        yield TlsSite(authority, port, authority.issue("client"))


def test_a_topology_is_kept_over_tls(
    tls_site: TlsSite, opened: Callable[..., TopologyStore]
) -> None:
    """Both sides show certificates of the site's own authority."""
    store = opened(f"zookeeper://127.0.0.1:{tls_site.port}/topology", **tls_site.options())
    assert store.read() is None
    store.write(FIRST, expected_epoch=None)
    assert [store.read() for _ in range(50)] == [FIRST] * 50


def test_a_server_of_another_name_is_refused(
    tls_site: TlsSite, opened: Callable[..., TopologyStore]
) -> None:
    """The certificate is for 127.0.0.1; only who says so in the settings accepts another name."""
    url = f"zookeeper://localhost:{tls_site.port}/other"
    store = opened(url, **tls_site.options())
    with pytest.raises(StoreUnavailable, match="Hostname mismatch"):
        store.read()
    lenient = opened(url, **tls_site.options(check_hostname=False))
    assert lenient.read() is None


def test_a_server_of_another_authority_is_refused(
    tls_site: TlsSite, tmp_path: Path, opened: Callable[..., TopologyStore]
) -> None:
    """Only the given authority counts, also without a look at the name."""
    stranger = Authority(tmp_path)
    options = tls_site.options(ca=str(stranger.ca), check_hostname=False)
    store = opened(f"zookeeper://127.0.0.1:{tls_site.port}/topology", **options)
    with pytest.raises(StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        store.read()


JAAS = """
Server {
    org.apache.zookeeper.server.auth.DigestLoginModule required user_operator="hunter2";
};
"""


def test_with_sasl_only_its_user_reads(
    tmp_path: Path, opened: Callable[..., TopologyStore]
) -> None:
    """A known user creates and reads; a wrong password gives an error that names the setting."""
    pytest.importorskip("puresasl", reason="pure-sasl is not installed")
    jaas = tmp_path / "jaas.conf"
    jaas.write_text(JAAS, encoding="utf-8")
    with ZooKeeperServer(
        extra_config=["authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider"],
        java_options=[f"-Djava.security.auth.login.config={jaas}"],
    ) as server:
        url = f"zookeeper://{server.hosts}/topology"
        sasl = {"mechanism": "DIGEST-MD5", "username": "operator", "password": "hunter2"}
        owner = opened(url, sasl=sasl)
        owner.write(FIRST, expected_epoch=None)
        assert owner.read() == FIRST
        for options in ({}, {"sasl": sasl | {"password": "wrong"}}):
            stranger = opened(url, timeout_s=3.0, **options)
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match="sasl") as caught:
                    stranger.read()
                assert "wrong" not in str(caught.value)


def test_servers_are_looked_at_over_tls(
    tls_site: TlsSite, opened: Callable[..., OperatorStore]
) -> None:
    """With the store's own certificates; without them the reason is told."""
    url = f"zookeeper://127.0.0.1:{tls_site.port}/topology"
    (server,) = opened(url, **tls_site.options()).servers()
    assert server.serves, server.reason
    (plain,) = opened(url, timeout_s=1.0).servers()
    assert not plain.serves
