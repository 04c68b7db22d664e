"""A real host for tests that talk to it from threads, as clients do: its loop runs beside them."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psutil

from edgefleet_agent.runtime.cgroups import Cgroups
from edgefleet_agent.runtime.chain import Accelerators
from edgefleet_agent.runtime.host import LocalHost
from edgefleet_agent.runtime.memory import available_bytes
from edgefleet_agent.serving.config import ServingConfig

T = TypeVar("T")


@dataclass
class Answered:
    """What a client got."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class RunningHost:
    """A host on a loop of its own. `do` runs a coroutine there and waits for it."""

    host: LocalHost
    loop: asyncio.AbstractEventLoop

    @property
    def port(self) -> int:
        return next(
            int(a.rpartition(":")[2]) for a in self.host.addresses if not a.startswith("unix:")
        )

    def do(self, work: Coroutine[Any, Any, T], timeout: float = 60) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
        connection: http.client.HTTPConnection | None = None,
    ) -> Answered:
        own = connection or self.connect()
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body)
        own.request(method, path, raw, headers or {})
        response = own.getresponse()
        answered = Answered(
            response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        )
        if connection is None:
            own.close()
        return answered

    def predict(self, slot: str, body: object) -> Answered:
        return self.ask("POST", f"/v1/models/{slot}:predict", body)

    def stats(self, slot: str) -> Any:
        return next(stats for stats in self.host.stats() if stats.slot == slot)


@contextmanager
def running(
    *,
    zygote: bool = True,
    accelerators: Accelerators | None = None,
    available: Callable[[], int] = available_bytes,
    groups: Cgroups | None = None,
    **config: Any,
) -> Iterator[RunningHost]:
    """A started host on a free port; everything is gone afterwards, or the test fails."""
    serving = ServingConfig(**{"listen": ("127.0.0.1:0",), **config})
    host = LocalHost(
        serving, zygote=zygote, accelerators=accelerators, available=available, groups=groups
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    here = RunningHost(host, loop)
    before = set(psutil.Process().children(recursive=True))
    try:
        here.do(host.start())
        yield here
    finally:
        here.do(host.close())
        left = set(psutil.Process().children(recursive=True)) - before
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    assert not left, f"processes left behind: {left}"


def until(is_so: Callable[[], bool], timeout: float = 30) -> None:
    """Return once the condition holds; fail after the time."""
    end = time.monotonic() + timeout
    while not is_so():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


@dataclass
class Load:
    """Keep-alive clients that ask without a pause; `answers` counts (version, what was told).

    `told` makes that of an answer: the first output, where nothing else is asked.
    """

    here: RunningHost
    path: str
    body: bytes
    clients: int = 4
    told: Callable[[Answered], Any] = lambda answer: answer.json()["predictions"][0][0]
    answers: Counter[tuple[str, Any]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _counting: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._run) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def total(self) -> int:
        return sum(self.answers.values()) + len(self.failures)

    def more(self, count: int) -> None:
        """Wait until so many more requests were answered."""
        goal = self.total + count
        until(lambda: self.total >= goal)

    def _run(self) -> None:
        connection = self.here.connect()
        connection.connect()
        sock = connection.sock  # http.client would reconnect silently: that would hide a reset
        while not self._stop.is_set():
            start = time.perf_counter()
            try:
                answer = self.here.ask("POST", self.path, self.body, connection=connection)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                connection.connect()
                sock = connection.sock
                continue
            self.seconds.append(time.perf_counter() - start)
            if answer.status != 200 or connection.sock is not sock:
                patience = " retry" if "retry-after" in answer.headers else ""
                self.failures.append(f"{answer.status}{patience} {answer.body!r}")
                continue
            version = answer.headers["edgefleet-model-version"]
            told = self.told(answer)
            with self._counting:  # a count that is made is two steps
                self.answers[version, told] += 1
        connection.close()
