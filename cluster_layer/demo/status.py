"""What a chat server says of itself; `python -m cluster_layer.demo.status URL` prints it."""

import json
import sys
import urllib.request
from typing import Any


def status_of(url: str) -> dict[str, Any]:
    """A server's status page; OSError when it does not answer."""
    with urllib.request.urlopen(f"{url}/status.json", timeout=5) as response:  # noqa: S310 - ours
        status: dict[str, Any] = json.load(response)
    return status


if __name__ == "__main__":
    print(json.dumps(status_of(sys.argv[1])))
