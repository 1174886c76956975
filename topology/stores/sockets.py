"""Sockets to a store's server: with a limit to each wait, and TLS that checks who answers."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from typing import Any

from topology.errors import StoreConfigError


def open_socket(
    address: tuple[str, int], hostname: str, limit_s: float, context: ssl.SSLContext | None
) -> socket.socket:
    """A connected socket, with TLS if there is a context. OSError, leaving nothing open."""
    plain = socket.create_connection(address, limit_s)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Without it the kernel doubles its pause before each repetition of a lost packet, and
            # a connection through a network that is back stays silent for many seconds more.
            limit_ms = int(limit_s * 1000)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)
        return plain if context is None else context.wrap_socket(plain, server_hostname=hostname)
    except BaseException:
        plain.close()
        raise


def tls_context(settings: Mapping[str, Any]) -> ssl.SSLContext:
    """Context for ``{ca, cert, key, key_password, check_hostname}``; StoreConfigError.

    The server's certificate is always verified: against ``ca`` alone where it is given, else
    against the system's authorities. The host name is checked unless ``check_hostname`` is false.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = settings.get("check_hostname", True)
    _load_authorities(context, settings.get("ca"))
    if settings.get("cert") is not None:
        _load_own_certificate(context, settings)
    return context


def _load_authorities(context: ssl.SSLContext, ca: str | None) -> None:
    if ca is None:
        context.load_default_certs()
        return
    try:
        context.load_verify_locations(ca)
    except OSError as error:  # ssl.SSLError is one
        raise _unusable("ca", ca, error) from None


def _load_own_certificate(context: ssl.SSLContext, settings: Mapping[str, Any]) -> None:
    # Asked for a password that it was not given, OpenSSL would read the terminal.
    password = settings.get("key_password", "")
    try:
        context.load_cert_chain(settings["cert"], settings.get("key"), password)
    except OSError as error:
        raise _unusable("cert", settings["cert"], error) from None


def _unusable(setting: str, value: str, error: OSError) -> StoreConfigError:
    return StoreConfigError(
        f"the setting tls[{setting!r}] {value!r} cannot be used ({error}): "
        "give the path of a readable PEM file"
    )
