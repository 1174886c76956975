"""What the demo's parent process tells its servers: a small JSON file, replaced as a whole."""

import json
from pathlib import Path
from typing import TypedDict


class ShardState(TypedDict):
    port: int
    pid: int | None  # None while it is down


class SiteState(TypedDict):
    servers: list[str]
    shards: dict[str, ShardState]


def write_state(directory: Path, state: SiteState) -> None:
    draft = directory / "site.json.new"
    draft.write_text(json.dumps(state), encoding="utf-8")
    draft.replace(directory / "site.json")


def read_state(directory: Path) -> SiteState:
    state: SiteState = json.loads((directory / "site.json").read_text(encoding="utf-8"))
    return state
