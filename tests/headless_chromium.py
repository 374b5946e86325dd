"""A headless Chromium that tests drive over its DevTools protocol: JSON messages through two pipes."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
TIMEOUT_S = 60.0


def find_chromium() -> str | None:
    """The program, or None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """One browser with one page; ``messages`` holds what the page's console said and the errors it met, ``requests``
    the addresses that it asked for."""

    def __init__(self, program: str, profile: Path) -> None:
        self.messages: list[str] = []
        self.requests: list[str] = []
        self._events: list[dict[str, Any]] = []
        self._buffer = b""
        self._sent = 0
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
                 "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
                 f"--user-data-dir={profile}", "--remote-debugging-pipe")  # fmt: skip
        its_read, self._write = os.pipe()
        self._read, its_write = os.pipe()
        # The browser reads commands from descriptor 3 and writes answers to 4.
        pipes = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (its_read, its_write)]
        self._log = profile / "stderr.txt"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, *flags, "about:blank"],
                preexec_fn=lambda: [os.dup2(pipe, 3 + k) for k, pipe in enumerate(pipes)],
                pass_fds=(3, 4),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        for end in (its_read, its_write, *pipes):
            os.close(end)
        self._session: str | None = None
        target = next(t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, path: Path) -> None:
        """Load a file as a page and wait until it is complete; messages and requests begin anew."""
        self.messages.clear()
        self.requests.clear()
        self._events.clear()
        self._call("Page.navigate", url=path.resolve().as_uri())
        deadline = time.monotonic() + TIMEOUT_S
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._receive(deadline)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """Press and release the mouse in the middle of the first element that a CSS selector finds."""
        place = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{place}.scrollIntoView({{block: 'center', inline: 'center', behavior: 'instant'}})")
        x, y = self.evaluate(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({place}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, code: int, text: str = "") -> None:
        """A key goes down and up, such as ("Enter", 13, "\\r")."""
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)

    def emulate(self, width: int, height: int, scheme: str = "light", media: str = "") -> None:
        """Give the page a screen of so many CSS pixels, a colour scheme and a medium ("print")."""
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", media=media, features=features)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """A PNG of what the screen shows, or of the whole page."""
        data = self._call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """End the browser."""
        os.close(self._write)  # it ends when nobody can command it any more
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._sent += 1
        number, message = self._sent, {"id": self._sent, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + TIMEOUT_S
        while (answer := self._receive(deadline)).get("id") != number:
            pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _receive(self, deadline: float) -> dict[str, Any]:
        """The next message; events are kept."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"Chromium did not answer within {TIMEOUT_S:.0f} s"
            part = os.read(self._read, 1 << 20)
            assert part, f"Chromium has ended: {self._log.read_text(errors='replace')[-2000:]}"
            self._buffer += part
        data, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(data)
        if "method" in message:
            self._events.append(message)
            parameters = message["params"]
            if message["method"] == "Runtime.consoleAPICalled":
                self.messages.append(" ".join(str(a.get("value", a.get("description"))) for a in parameters["args"]))
            elif message["method"] == "Runtime.exceptionThrown":
                self.messages.append(parameters["exceptionDetails"]["exception"]["description"])
            elif message["method"] == "Log.entryAdded":
                self.messages.append(parameters["entry"]["text"])
            elif message["method"] == "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
        return message
