"""URLs and options of stores: what is accepted, and errors that name the remedy."""

from pathlib import Path
from typing import Any

import pytest

from tests.topology.stores.certificates import Authority
from topology.errors import StoreConfigError
from topology.stores import open_store
from topology.stores.options import ZooKeeperOptions, parse_zookeeper_url

ZK = "zookeeper://zk:2181/site/topology"

WRONG_URLS = [
    (7, "must be a string, not int"),
    ("", "unknown: use zookeeper://"),
    ("/etc/topology.json", "unknown: use zookeeper://"),
    ("redis://:hunter2@host", r"'redis://:\*\*\*@host' is unknown"),
    ("file://relative.json", "absolute path after three slashes"),
    ("file:///", "absolute path after three slashes"),
    ("file:///a.json?x=1", "absolute path after three slashes"),
    ("zookeeper://zk:2181", "name the znode"),
    ("zookeeper://zk:2181/", "name the znode"),
    ("zookeeper://zk:2181/a//b", "name the znode"),
    ("zookeeper://zk:2181/a/", "name the znode"),
    ("zookeeper://zk:2181/a/../b", "name the znode"),
    ("zookeeper://zk:2181/a\0b", "name the znode"),
    ("zookeeper:///site", "'' is not host or host:port"),
    ("zookeeper://a,,b/site", "'' is not host or host:port"),
    ("zookeeper://a b/site", "'a b' is not host or host:port"),
    ("zookeeper://a:x/site", "'a:x' is not host or host:port"),
    ("zookeeper://a:0/site", "port 0 is not within 1 to 65535"),
    ("zookeeper://a:65536/site", "port 65536 is not within"),
    ("zookeeper://me:hunter2@zk/site", "credentials belong in the option 'digest'"),
    ("zookeeper://zk/site?timeout=3", "options are given beside the URL"),
]


@pytest.mark.parametrize(("url", "reason"), WRONG_URLS)
def test_a_wrong_url_is_refused_with_its_remedy(url: str, reason: str) -> None:
    """Nothing is opened, and no password shown."""
    with pytest.raises(StoreConfigError, match=reason) as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value)


WRONG_OPTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("memory://x", {"timeout_s": 1}, r"'timeout_s' is unknown \(allowed: none\)"),
    ("file:///x.json", {"digest": "a:b"}, r"'digest' is unknown \(allowed: poll_s, timeout_s\)"),
    ("file:///x.json", {"poll_s": 0}, "'poll_s' is 0; allowed are 0.01 to 60 seconds"),
    ("file:///x.json", {"timeout_s": True}, "'timeout_s' is True"),
    (ZK, {"session_timeout": 5}, "did you mean 'session_timeout_s'"),
    (ZK, {"tls_context": None}, "'tls_context' is unknown"),
    (ZK, {"session_timeout_s": 0.5}, "allowed are 1 to 600 seconds"),
    (ZK, {"timeout_s": float("nan")}, "'timeout_s' is nan"),
    (ZK, {"timeout_s": "5"}, "'timeout_s' is '5'"),
    (ZK, {"digest": "hunter2"}, "'digest' .* must be a string user:password"),
    (ZK, {"digest": ("me", "hunter2")}, "'digest' .* must be a string user:password"),
    (ZK, {"digest": "me:"}, "'digest' .* must be a string user:password"),
    (ZK, {"sasl": "me:hunter2"}, "'sasl' must be a dict, not str"),
    (ZK, {"sasl": {"user": "me"}}, "'user' is unknown; did you mean 'username'"),
    (ZK, {"sasl": {"mechanism": "PLAIN"}}, r"sasl\['mechanism'\] is 'PLAIN'; allowed: 'DIGEST"),
    (ZK, {"sasl": {"username": "x"}}, r"sasl\['mechanism'\] is None"),
    (ZK, {"sasl": {"mechanism": "DIGEST-MD5", "password": 5}}, "must be str, not int"),
    (ZK, {"sasl": {"mechanism": "DIGEST-MD5", "password": "hunter2"}}, "needs 'username' and"),
    (ZK, {"tls": True}, "'tls' must be a dict, not bool"),
    (ZK, {"tls": {"verify": False}}, "'verify' is unknown"),
    (ZK, {"tls": {"check_hostname": "no"}}, r"tls\['check_hostname'\] must be bool, not str"),
    (ZK, {"tls": {"ca": "/no/such.pem"}}, r"tls\['ca'\] '/no/such.pem' cannot be used"),
    (ZK, {"tls": {"cert": "/no/such.pem"}}, r"tls\['cert'\] '/no/such.pem' cannot be used"),
    (ZK, {"tls": {"key": "/no/such.pem"}}, r"tls\['key'\] needs tls\['cert'\]"),
]


@pytest.mark.parametrize(("url", "options", "reason"), WRONG_OPTIONS)
def test_a_wrong_option_is_refused_with_its_remedy(
    url: str, options: dict[str, Any], reason: str
) -> None:
    """The error names the setting, the value and what is allowed, and shows no secret."""
    with pytest.raises(StoreConfigError, match=reason) as caught:
        open_store(url, **options)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "hosts", "path"),
    [
        ("zookeeper://zk/t", "zk:2181", "/t"),
        ("zookeeper://a:1,b.example,c-3:65535/x/y", "a:1,b.example:2181,c-3:65535", "/x/y"),
        ("zookeeper://[::1],[fe80::2]:99/t", "[::1]:2181,[fe80::2]:99", "/t"),
    ],
)
def test_hosts_get_the_usual_port(url: str, hosts: str, path: str) -> None:
    """Names, addresses of both kinds, with and without a port."""
    assert parse_zookeeper_url(url) == (hosts, path)


def test_secrets_are_not_in_the_repr(tmp_path: Path) -> None:
    """Options can be logged."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("me")
    options = ZooKeeperOptions(
        digest="me:hunter2",
        tls={"cert": str(certificate), "key": str(key), "key_password": "hunter2"},
    )
    assert "hunter2" not in repr(options)
    assert options.authenticated
    assert options.tls_context is not None
    assert options.tls_context.check_hostname
    assert not ZooKeeperOptions().authenticated
