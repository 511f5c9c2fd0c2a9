# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Chromium without a window, driven over the DevTools protocol through a pipe: no port, no further package."""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--use-angle=swiftshader", "--no-first-run",
    "--enable-unsafe-swiftshader", "--disable-background-networking", "--disable-component-update",
    "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """One page.

    Args:
        program: path of Chromium.
        size: of the window [pixels].
    """

    def __init__(self, program: str, size: tuple[int, int] = (1400, 900)) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        command = [
            program, *OPTIONS, f"--window-size={size[0]},{size[1]}", f"--user-data-dir={self._profile.name}",
            "about:blank",
        ]  # fmt: skip
        redirected = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", redirected, "bash", *command],
            pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._number, self._rest = 0, b""
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._session: str | None = None
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Page", "Network", "Log"):
            self.command(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(20)
        os.close(self._in)
        os.close(self._out)
        self._profile.cleanup()

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its reply; what the page says meanwhile is kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        content = json.dumps(message).encode() + b"\0"
        while content:
            content = content[os.write(self._out, content) :]
        while True:
            reply = self._receive()
            if reply.get("id") == self._number:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error']}")
                found: dict[str, Any] = reply["result"]
                return found
            self._note(reply)

    def js(self, code: str) -> Any:
        """The value of an expression in the page."""
        reply = self.command("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in reply:
            raise RuntimeError(str(reply["exceptionDetails"].get("exception", {}).get("description"))[:600])
        return reply["result"].get("value")

    def until(self, code: str, seconds: float = 240) -> Any:
        """Wait until an expression is true; a failure inside it counts as not yet."""
        end = time.monotonic() + seconds
        last: Any = None
        while time.monotonic() < end:
            try:
                last = self.js(f"(() => {{ try {{ return {code}; }} catch (e) {{ return null; }} }})()")
            except RuntimeError as error:  # the page is being changed for another
                last = error
            if last and not isinstance(last, RuntimeError):
                return last
            time.sleep(0.25)
        raise TimeoutError(f"{code}: not so after {seconds} s, last {last!r}. {self.errors[-3:]}")

    def open(self, url: str) -> None:
        """Go to a page."""
        self.command("Page.navigate", url=url)

    def click(self, x: float, y: float, to: tuple[float, float] | None = None) -> None:
        """Press the left button at a place, and let go of it there or elsewhere."""
        self._mouse("mouseMoved", x, y, 0)
        self._mouse("mousePressed", x, y, 1)
        end = to or (x, y)
        for step in range(1, 6) if to else ():
            self._mouse("mouseMoved", x + (end[0] - x) * step / 5, y + (end[1] - y) * step / 5, 1)
            time.sleep(0.05)
        self._mouse("mouseReleased", *end, 0)

    def picture(self, path: Path) -> None:
        """What the page looks like, as PNG."""
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))

    def _mouse(self, kind: str, x: float, y: float, buttons: int) -> None:
        button = "none" if kind == "mouseMoved" and not buttons else "left"
        self.command(
            "Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, buttons=buttons, clickCount=1
        )

    def _receive(self, seconds: float = 300) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(end - time.monotonic(), 0))
            read = os.read(self._in, 1 << 20) if ready else b""
            if not read:
                raise RuntimeError("the browser does not answer")
            self._rest += read
        first, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(first)
        return found

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(str(details.get("exception", {}).get("description", details))[:400])
        elif message.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            said = (str(one.get("value", one.get("description"))) for one in params["args"])
            self.errors.append(" ".join(said)[:400])
        elif message.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(str(params["entry"])[:400])
