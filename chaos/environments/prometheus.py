"""What a running Prometheus says, by its HTTP interface."""

from __future__ import annotations

import json
import urllib.parse
from http.client import HTTPConnection
from typing import Any

_TIMEOUT_S = 30.0


class Prometheus:
    """A server at an address, "host:port"; each question is a request of its own."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer; None while it does not answer, or is not ready."""
        query = urllib.parse.urlencode(parameters)
        try:
            return json.loads(got(self.address, f"/api/v1/{path}?{query}"))["data"]
        except OSError:
            return None

    def targets(self) -> dict[str, str]:
        """Instance -> "up", "down" or "unknown"."""
        found = self.ask("targets") or {"activeTargets": []}
        return {one["labels"]["instance"]: one["health"] for one in found["activeTargets"]}

    def rules(self, key: str) -> dict[str, str]:
        """Alert -> its "health" or "state"."""
        groups = (self.ask("rules") or {"groups": []})["groups"]
        return {rule["name"]: rule[key] for group in groups for rule in group["rules"]}

    def has(self, query: str) -> bool:
        """Whether there is an answer to an expression."""
        return bool((self.ask("query", query=query) or {"result": []})["result"])


def got(address: str, path: str) -> bytes:
    """The body of a page. OSError: no answer, or another one than 200."""
    connection = HTTPConnection(address, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status != 200:
            raise OSError(f"{path}: {response.status}")
        return response.read()
    finally:
        connection.close()
