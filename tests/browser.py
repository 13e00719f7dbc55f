"""A real browser, headless Chromium, spoken to by its DevTools protocol over a pipe: no driver, no library, no port."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--remote-debugging-pipe",
)  # fmt: skip
# Chromium reads its commands from descriptor 3 and answers on 4.
AS_3_AND_4 = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
LIMIT = 120  # seconds for an answer, on a machine that does much else
Message = dict[str, Any]


def executable() -> str | None:
    """The path of a Chromium; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


needs_chromium = pytest.mark.skipif(executable() is None, reason="there is no chromium to open a page in")


class Browser:
    """One page at a time. ``errors`` are what its console complains of, ``requests`` what it asks for beside itself."""

    def __init__(self, profile: Path) -> None:
        path = executable()
        assert path is not None
        read_commands, self._write = os.pipe()
        self._read, write_answers = os.pipe()
        command = [sys.executable, "-c", AS_3_AND_4, str(read_commands), str(write_answers)]
        self._process = subprocess.Popen(
            [*command, path, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(read_commands, write_answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        self._buffer, self._number = b"", 0
        self._session: str | None = None
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    def _attach(self) -> None:
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the browser, by force where it does not answer."""
        self._session = None
        try:
            self._ask("Browser.close")
            self._process.wait(20)
        except (OSError, EOFError, AssertionError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def open(self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a file and wait until all of its figures are drawn."""
        self.errors, self.requests, self._loaded = [], [], False
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._ask("Emulation.setEmulatedMedia", features=features)
        answer = self._ask("Page.navigate", url=page.resolve().as_uri())
        assert "errorText" not in answer, f"{page} cannot be opened: {answer['errorText']}"
        while not self._loaded:
            self._take(LIMIT)
        self.wait_for("document.documentElement.dataset.drawn !== undefined")

    def wait_for(self, condition: str) -> None:
        """Until an expression is true."""
        end = time.monotonic() + LIMIT
        while not self.evaluate(condition):
            assert time.monotonic() < end, f"{condition} does not come true; errors: {self.errors}"
            time.sleep(0.05)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page, which may be a promise."""
        answer = self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, *, whole: bool = True) -> bytes:
        """The page as PNG, all of it or what the window shows."""
        return base64.b64decode(self._ask("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self._ask("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"])

    def _ask(self, method: str, **params: Any) -> Message:
        self._number += 1
        message: Message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._take(LIMIT)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _take(self, seconds: float) -> Message:
        """The next message; what the page's console or network says is kept."""
        end = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(end - time.monotonic(), 0))
            if not ready:
                raise TimeoutError(f"chromium does not answer within {seconds} s")
            got = os.read(self._read, 2**20)
            if not got:
                raise EOFError("chromium has ended")
            self._buffer += got
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: Message = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, told: Message) -> None:
        match event:
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.exceptionThrown":
                details = told["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                self.errors.append(" ".join(str(value.get("value", value)) for value in told["args"]))
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                self.errors.append(told["entry"]["text"])
            case "Network.requestWillBeSent" if not told["request"]["url"].startswith(("file:", "data:", "blob:")):
                self.requests.append(told["request"]["url"])
