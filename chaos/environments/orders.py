"""What a process of a run is told: at its start, and while it works."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Orders:
    """What one life of a process is to do; a file that its program is given.

    `layer` and `config` say what it tests, `hosts` where the shards are for a layer that knows no
    topology. `redirect` is a file that says where connections really go. `later`: it writes what a
    later version of the layer may write.
    """

    process: str
    workload: str
    seed: str
    layer: str
    config: dict[str, Any]
    hosts: list[str]
    directory: str
    redirect: str = ""
    later: bool = False

    @property
    def events(self) -> Path:
        return self._file("events")

    @property
    def ready(self) -> Path:
        return self._file("ready")

    @property
    def commands(self) -> Path:
        """JSON lines, appended to while the process lives."""
        return self._file("commands")

    @property
    def done(self) -> Path:
        """A line for each command that has been carried out."""
        return self._file("done")

    @property
    def begin(self) -> Path:
        return Path(self.directory) / "begin"

    def write(self) -> Path:
        path = self._file("orders")
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Orders:
        return cls(**json.loads(path.read_text("utf-8")))

    def _file(self, kind: str) -> Path:
        return Path(self.directory) / f"{self.process}.{kind}"
