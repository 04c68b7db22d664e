"""Clients that ask without a pause, over connections that they keep, and count what comes back."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType

import numpy as np
from numpy.typing import NDArray


@dataclass
class Tally:
    """What the clients of one device saw: answers by version, failures with their words.

    `answers` are the different bodies that came under a version's name; asked always the same, an
    honest version has one.
    """

    versions: Counter[int] = field(default_factory=Counter)
    answers: dict[int, set[bytes]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    reconnects: int = 0
    slowest_ms: float = 0.0

    @property
    def requests(self) -> int:
        """All that were sent."""
        return sum(self.versions.values()) + len(self.failures)


class Load:
    """`with Load(address, body, clients=2) as load: …`; `load.tally` afterwards.

    Every client has one connection for its whole life. A request fails when the answer is not 200,
    does not say which version gave it, or does not come.
    """

    def __init__(self, address: str, model: str, body: bytes, *, clients: int = 2) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._path, self._body = f"/v1/models/{model}:predict", body
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        self.tally = Tally()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=30)
        connection.connect()
        first_socket = connection.sock
        versions: Counter[int] = Counter()
        answers: dict[int, set[bytes]] = {}
        failures: list[str] = []
        slowest = 0.0
        while not self._stop.is_set():
            began = monotonic()
            try:
                connection.request("POST", self._path, self._body)
                response = connection.getresponse()
                answer = response.read()
                if response.status != 200:
                    failures.append(f"{response.status}: {answer[:200]!r}")
                else:
                    version = int(response.headers["edgefleet-model-version"])
                    versions[version] += 1
                    answers.setdefault(version, set()).add(answer)
            except (OSError, http.client.HTTPException, TypeError, ValueError) as error:
                failures.append(repr(error))
                connection.close()
            slowest = max(slowest, monotonic() - began)
        with self._lock:
            self.tally.versions += versions
            for version, bodies in answers.items():
                self.tally.answers.setdefault(version, set()).update(bodies)
            self.tally.failures += failures
            self.tally.reconnects += connection.sock is not first_socket
            self.tally.slowest_ms = max(self.tally.slowest_ms, slowest * 1000)
        connection.close()


def accuracy(address: str, model: str, x: NDArray[np.float32], y: NDArray[np.int64]) -> float:
    """The share of held-out images that a device's API labels rightly; one request an image.

    Args:
        address: `host:port`.
        model: the name under which it is served.
        x: float32 [N, F].
        y: int64 [N].
    """
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    right = 0
    for row, label in zip(x, y, strict=True):
        body = json.dumps({"instances": [row.tolist()]})
        connection.request("POST", f"/v1/models/{model}:predict", body)
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status == 200:
            right += int(np.argmax(answer["predictions"][0])) == int(label)
    connection.close()
    return right / len(y)
