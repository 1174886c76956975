"""Writes events down so that a process that is killed has lost none of them."""

from __future__ import annotations

import json
import mmap
import os
import threading
import time
from pathlib import Path
from typing import Any, Final

from chaos.history import Operation, event_of

_NOTHING: Final = '""'
_GROWTH: Final = 1 << 22  # bytes


class Recorder:
    """Appends events to a file that is mapped into memory; safe to use from several threads.

    What has been copied there belongs to the kernel: it outlives a kill -9, and costs no system
    call. An operation is written down before it is invoked, so nothing can arrive of which the
    history knows nothing.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.ftruncate(self._descriptor, _GROWTH)
        self._map = mmap.mmap(self._descriptor, _GROWTH)
        self._size = _GROWTH
        self._at = 0
        self._lock = threading.Lock()
        self._closed = False

    def record(self, value: Any) -> None:
        """Anything but an operation, which has two events."""
        self._append(json.dumps(event_of(value)))

    def invoked(self, operation: Operation) -> None:
        # Put together by hand: it happens for every message. No name needs quoting.
        self._append(
            f'{{"e":"invoke","id":"{operation.id}","process":"{operation.process}",'
            f'"task":"{operation.task}","verb":"{operation.verb}","name":"{operation.name}",'
            f'"shard":"{operation.shard}","invoked_s":{operation.invoked_s:.6f},'
            f'"number":{operation.number},"member":"{operation.member}"}}'
        )

    def completed(
        self, operation_id: str, outcome: str, error: str, at_s: float | None = None
    ) -> None:
        """The call returned now, or, if that is told later, at `at_s` (monotonic)."""
        completed_s = time.monotonic() if at_s is None else at_s
        self._append(
            f'{{"e":"complete","id":"{operation_id}","completed_s":{completed_s:.6f},'
            f'"outcome":"{outcome}","error":{json.dumps(error) if error else _NOTHING}}}'
        )

    def delivered(self, process: str, channel: str, message: str) -> None:
        self._append(
            f'{{"e":"delivery","process":"{process}","channel":"{channel}",'
            f'"message":"{message}","at_s":{time.monotonic():.6f}}}'
        )

    def close(self) -> None:
        """Cut the file to its length; what is recorded afterwards is not."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._map.close()
                os.ftruncate(self._descriptor, self._at)
                os.close(self._descriptor)

    def _append(self, line: str) -> None:
        data = line.encode() + b"\n"
        with self._lock:
            if self._closed:
                return
            end = self._at + len(data)
            if end > self._size:
                self._size = end + _GROWTH
                os.ftruncate(self._descriptor, self._size)
                self._map.resize(self._size)
            self._map[self._at : end] = data
            self._at = end
