"""Secrets that a URL names instead of holding: ``{env:NAME}`` and ``{file:/path}``.

So a topology, which every process and operator reads, holds none. Each process puts in what its own
environment or files say, percent-encoded, when it reads the URL.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cluster_layer.errors import ConfigError

_REFERENCE: Final = re.compile(r"\{(env|file):([^{}]+)\}")
#: More is no password, but a mistake in the path.
MAX_BYTES: Final = 4096


def filled_in(url: str) -> str:
    """The URL with its secrets. ConfigError: one can't be had; it says which, and holds none."""
    return _REFERENCE.sub(_secret, url) if "{" in url else url


def _secret(reference: re.Match[str]) -> str:
    kind, name = reference.groups()
    secret = _from_environment(name) if kind == "env" else _from_file(name)
    return quote(secret, safe="")


def _from_environment(name: str) -> str:
    secret = os.environ.get(name)
    if not secret:
        raise ConfigError(
            f"a URL refers to {{env:{name}}}, and the environment variable {name} is not set: set "
            "it for every process that uses the layer"
        )
    return secret


def _from_file(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        secret = data.decode().rstrip("\r\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigError(
            f"a URL refers to {{file:{name}}}, which can't be read: {reason}"
        ) from None
    if not secret or len(data) > MAX_BYTES:
        raise ConfigError(
            f"a URL refers to {{file:{name}}}, which must hold 1 to {MAX_BYTES:,} bytes of text"
        )
    return secret
