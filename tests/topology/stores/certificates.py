"""A throw-away certificate authority and what it signs."""

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID


class Authority:
    """Writes `ca.pem` and, for each name, `name.pem` (certificate) and `name.key.pem` (key)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._name = _named("test authority")
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(self._signed(self._name, self._key, None))

    def issue(self, name: str, *hosts: str) -> tuple[Path, Path]:
        """Paths of a certificate for the hosts (names or addresses) and of its key."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        certificate = self.directory / f"{name}.pem"
        certificate.write_bytes(self._signed(_named(name), key, hosts))
        secret = self.directory / f"{name}.key.pem"
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate, secret

    def _signed(
        self, name: x509.Name, key: rsa.RSAPrivateKey, hosts: tuple[str, ...] | None
    ) -> bytes:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=hosts is None, path_length=None), True)
        )
        if hosts:
            alternatives = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(alternatives, False)
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
