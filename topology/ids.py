"""New ids: the one place where they are drawn."""

from __future__ import annotations

import secrets


def new_cluster_id() -> str:
    """Of a cluster, drawn when its first topology is made: 16 hexadecimal digits."""
    return secrets.token_hex(8)


def new_change_id() -> str:
    """Of a planned change: 16 hexadecimal digits."""
    return secrets.token_hex(8)
