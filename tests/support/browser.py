"""A real, headless Chromium, driven over its DevTools protocol."""

import base64
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from websockets.sync.client import ClientConnection, connect

from cluster_layer.processes import ChildProcess
from tests.support.waiting import eventually

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ANSWER_TIMEOUT_S = 30.0


def find_chromium() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab; JavaScript errors that nobody caught are collected in `errors`."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = count(1)
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Returns when the document and its scripts are loaded."""
        self._call("Page.navigate", url=url)
        eventually(
            lambda: self.evaluate("document.readyState === 'complete' && location.href") == url
        )

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression; AssertionError when it throws."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, script: str, deadline_s: float = 30.0) -> Any:
        """The first truthy value of an expression."""
        return eventually(lambda: self.evaluate(script), deadline_s, what=script)

    def type_into(self, selector: str, text: str) -> None:
        """Focus a field, type, and press Enter, as a person would."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        self._call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent",
                type=kind,
                key="Enter",
                code="Enter",
                text="\r",
                windowsVirtualKeyCode=13,
            )

    def click(self, selector: str) -> None:
        """Click an element, as soon as there is one."""
        self.wait_for(f"document.querySelector({json.dumps(selector)}) !== null")
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def screenshot(self, path: Path, width: int = 1280, height: int = 800) -> None:
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        picture = self._call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(picture))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=_ANSWER_TIMEOUT_S))
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                result: dict[str, Any] = message["result"]
                return result
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(message["params"]["exceptionDetails"]))


class Browser:
    """A running Chromium with a profile of its own."""

    def __init__(self, debugging_port: int) -> None:
        self._address = f"http://127.0.0.1:{debugging_port}"

    @contextmanager
    def page(self) -> Iterator[Page]:
        """A new tab, closed at the end."""
        version = f"{self._address}/json/version"
        with urlopen(version, timeout=_ANSWER_TIMEOUT_S) as answer:  # noqa: S310 - our browser
            control_url = json.load(answer)["webSocketDebuggerUrl"]
        with connect(control_url, max_size=None) as control:
            control.send(
                json.dumps(
                    {"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}}
                )
            )
            target = json.loads(control.recv(timeout=_ANSWER_TIMEOUT_S))["result"]["targetId"]
            url = control_url[: control_url.index("/devtools/")] + f"/devtools/page/{target}"
            with connect(url, max_size=None) as connection:
                yield Page(connection)


@contextmanager
def running_chromium(executable: str) -> Iterator[Browser]:
    directory = Path(tempfile.mkdtemp(prefix="chromium-"))
    command = [
        executable,
        "--headless=new",
        "--remote-debugging-port=0",
        f"--user-data-dir={directory}",
        "--no-first-run",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-extensions",
        "--disable-background-networking",
        # Tabs in the background shall run as if somebody looked at them.
        "--disable-background-timer-throttling",
        "--disable-renderer-backgrounding",
        "--disable-backgrounding-occluded-windows",
        # Root may not use the sandbox, and pages here are our own.
        "--no-sandbox",
        "about:blank",
    ]
    environment = os.environ | {"HOME": str(directory)}
    process = ChildProcess(command, output=directory / "output.log", env=environment)
    port_file = directory / "DevToolsActivePort"
    try:
        eventually(
            lambda: not process.running or (port_file.exists() and port_file.read_text()),
            deadline_s=60,
            what="chromium's debugging port",
        )
        assert process.running, process.output()
        yield Browser(int(port_file.read_text().split()[0]))
    finally:
        process.stop()
        # Its helpers end a moment later, and write to their profile until then.
        eventually(lambda: _removed(directory))


def _removed(directory: Path) -> bool:
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()
