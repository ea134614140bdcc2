"""A headless Chromium for tests of pages, driven by the DevTools protocol over a pipe."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Browser", "browser"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
    *("--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"),
    "--disable-extensions",
)


class PageLeftError(Exception):
    """The page went away while it was asked."""


class Browser:
    """One tab. Commands are JSON that ends in a NUL byte, as answers and events are.

    Args:
        write: Descriptor that commands go to.
        read: Descriptor that answers come from.
    """

    def __init__(self, write: int, read: int) -> None:
        self._out, self._in = os.fdopen(write, "wb"), os.fdopen(read, "rb")
        self._rest, self._sent, self._session = b"", 0, ""
        self.errors: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def open(self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show a file in a window of a size and theme, and wait until it is loaded."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[theme])
        self._call("Page.navigate", url="about:blank")
        self._call("Page.navigate", url=page.resolve().as_uri())
        self.run("new Promise(done => document.readyState == 'complete' ? done() : onload = done)")

    def run(self, script: str) -> Any:
        """Evaluate JavaScript, waiting for promises, and return what it comes to."""
        found = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str) -> None:
        """Wait until a JavaScript expression holds, also on the page that follows this one."""
        for _ in range(400):
            try:
                if self.run(f"(() => {{ try {{ return {script} }} catch {{ return false }} }})()"):
                    return
            except PageLeftError:
                pass
            time.sleep(0.05)
        raise AssertionError(script)

    def press(self, *places: tuple[float, float]) -> None:
        """Press the mouse at the first place of the window, move it over the others, release it."""
        events = [("mouseMoved", places[0]), ("mousePressed", places[0])]
        events += [("mouseMoved", place) for place in places[1:]]
        for kind, (x, y) in [*events, ("mouseReleased", places[-1])]:
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, key: str) -> None:
        """Press and release a key by its name, on what has the focus."""
        text = {"Enter": "\r"}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text)

    def allow(self, *permissions: str) -> None:
        """Grant permissions such as ``clipboardReadWrite``."""
        self._call("Browser.grantPermissions", permissions=list(permissions))

    def picture(self, out: Path) -> None:
        """Write the whole page as a PNG."""
        height = self.run("document.documentElement.scrollHeight")
        width = self.run("innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        found = self._call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        out.write_bytes(base64.b64decode(found["data"]))

    def _call(self, method: str, **params: object) -> dict[str, Any]:
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while (answer := self._next()).get("id") != self._sent:
            self._note(answer)
        if "navigated or closed" in str(answer.get("error")):
            raise PageLeftError(method)
        assert "error" not in answer, (method, answer["error"])
        return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._in.fileno(), 1 << 20)
            assert more, "the browser has ended"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        """Keep what a person would see in red in the console."""
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.errors.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(str(params["entry"]))


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium; the test is skipped where there is none."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(_NAMES)} is installed")
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()

    def as_three_and_four() -> None:
        first, second = os.dup(theirs_in), os.dup(theirs_out)
        os.dup2(first, 3)
        os.dup2(second, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=as_three_and_four,  # noqa: PLW1509  where Chromium looks for its pipes
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            yield Browser(ours_out, ours_in)
        finally:
            process.terminate()
            process.wait(timeout=20)
