"""A real browser (Chromium, without a window), told what to do over a pipe (DevTools protocol).

It notes what a person would find in its console, and every address that it asks for. A page may use
`confirm`: the answer is always yes.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import select
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tests.fleet.running import require

_PATIENCE_S: Final = 20.0
_FLAGS: Final = (
    *(
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-dev-shm-usage",
    ),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions"),
    "--remote-debugging-pipe",
)


@dataclass
class Browser:
    """One tab of a browser."""

    _to: int
    _from: int
    _session: str = ""
    _read: bytes = b""
    _waiting: deque[dict[str, Any]] = field(default_factory=deque)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    complaints: list[str] = field(default_factory=list)
    """What stands in its console as an error or a warning."""
    asked: list[str] = field(default_factory=list)
    """The addresses that it asked for."""
    loads: int = 0

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Iterator[Browser]:
        """A new one, without history and cookies; gone afterwards."""
        program = require("chromium", "chromium")
        (hears, to), (source, says) = os.pipe(), os.pipe()

        def be_heard() -> None:  # by its rules, it hears at 3 and says at 4
            high = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (hears, says)]
            for end, place in zip(high, (3, 4), strict=True):
                os.dup2(end, place)

        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
            flags = (*_FLAGS, f"--user-data-dir={home}", "about:blank")
            process = subprocess.Popen(
                [program, *flags],
                pass_fds=(3, 4),
                preexec_fn=be_heard,
                env={**os.environ, "HOME": home},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            os.close(hears)
            os.close(says)
            found = cls(to, source)
            try:
                found._attach()
                yield found
                found._call("Browser.close", whole=True)
            finally:
                os.close(to)
                os.close(source)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)
                process.kill()
                process.wait(5)

    def go(self, address: str) -> None:
        """Open an address, as typed."""
        loads = self.loads
        self._call("Page.navigate", url=address)
        self._until(lambda: self.loads > loads, address)

    def click(self, selector: str, *, loads: bool = True) -> None:
        """Click the first element that a CSS selector means; a click that loads is waited for."""
        before = self.loads
        self.run(f"document.querySelector({json.dumps(selector)}).click()")
        if loads:
            self._until(lambda: self.loads > before, f"a click on {selector}")

    def type(self, selector: str, text: str) -> None:
        """Put a text into a field."""
        self.run(f"document.querySelector({json.dumps(selector)}).value = {json.dumps(text)}")

    def run(self, script: str) -> Any:
        """What an expression gives in the page."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def see(self, script: str) -> None:
        """Wait until an expression holds in the page."""
        self._until(lambda: self.run(script), script)

    @property
    def path(self) -> str:
        """Where it is."""
        return str(self.run("location.pathname"))

    @property
    def text(self) -> str:
        """What a person reads."""
        return str(self.run("document.body.innerText"))

    def _attach(self) -> None:
        target = self._call("Target.createTarget", whole=True, url="about:blank")["targetId"]
        answer = self._call("Target.attachToTarget", whole=True, targetId=target, flatten=True)
        self._session = answer["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def _call(self, method: str, *, whole: bool = False, **params: Any) -> dict[str, Any]:
        number = self._send(method, whole=whole, **params)
        until = time.monotonic() + _PATIENCE_S
        while True:
            message = self._receive(until)
            assert message is not None, f"{method}: no answer"
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])

    def _send(self, method: str, *, whole: bool = False, **params: Any) -> int:
        message: dict[str, Any] = {"id": next(self._numbers), "method": method, "params": params}
        if not whole:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        return int(message["id"])

    def _until(self, what: Any, name: str) -> None:
        until = time.monotonic() + _PATIENCE_S
        while not what():
            assert time.monotonic() < until, f"{name}: it did not happen; {self.complaints}"
            self._receive(time.monotonic() + 0.05)

    def _receive(self, until: float) -> dict[str, Any] | None:
        """The next message, which is noted; None when the time is over."""
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._from], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            piece = os.read(self._from, 1 << 16)
            assert piece, "the browser ended"
            self._read += piece
        raw, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, said: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self.loads += 1
            case "Page.javascriptDialogOpening":
                self._send("Page.handleJavaScriptDialog", accept=True)
            case "Network.requestWillBeSent":
                self.asked.append(said["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(said["exceptionDetails"])[:500])
            case "Runtime.consoleAPICalled" if said["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(said["args"])[:500])
            case "Log.entryAdded" if said["entry"]["level"] in ("error", "warning"):
                entry = said["entry"]
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}")
