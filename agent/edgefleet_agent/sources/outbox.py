"""Results on their way to the broker: bounded for each source, the oldest given up first.

Only so many are with the MQTT client at a time, so that what waits while the link is down waits
here, where the newest are kept. [wire-11.4]
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from edgefleet_agent.sources.options import MqttSinkOptions
from edgefleet_contract import codec, messages
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import Malformed
from edgefleet_contract.results import Result

MAX_BYTES: Final = 64 * 1024
_WINDOW: Final = 16


class Receipt(Protocol):
    """What the MQTT client says of a message that it was given."""

    def is_published(self) -> bool:
        """Whether the broker has it."""
        ...


class Publisher(Protocol):
    """The agent's connection."""

    @property
    def is_connected(self) -> bool:
        """Whether the broker is reached now."""
        ...

    def publish_result(self, source: str, payload: bytes, *, retain: bool) -> Receipt:
        """Send a result, QoS 1."""
        ...


@dataclass(slots=True)
class Outbox:
    """The results of one source.

    Args:
        device, boot_id, source, slot: whose results they are; the process's word for it is not
            asked.
        options: how many wait, and whether the broker keeps the last.
    """

    device: str
    boot_id: str
    source: str
    slot: str
    options: MqttSinkOptions
    published: int = 0
    dropped: int = 0
    _seq: int = 0
    _waiting: deque[Result] = field(default_factory=deque)
    _sent: deque[Receipt] = field(default_factory=deque)

    @property
    def is_empty(self) -> bool:
        """Whether all that was put is with the broker, or given up."""
        return not self._waiting and not self._sent

    def put(self, told: dict[str, Json]) -> None:
        """Take what a source's process has to say.

        Raises:
            Malformed: it is no result, or one that is too large.
        """
        head: dict[str, Json] = {
            "device": self.device,
            "boot_id": self.boot_id,
            "seq": self._seq + 1,
            "source": self.source,
            "slot": self.slot,
        }
        result = codec.decode(Result, {**told, **head}, what=f"a result of {self.source}")
        try:
            size = len(messages.render(result))
        except ValueError as error:  # NaN, infinity
            raise Malformed(f"a result of {self.source}: {error}") from None
        if size > MAX_BYTES:
            raise Malformed(f"a result of {self.source} has {size} bytes, at most {MAX_BYTES}")
        messages.parse(Result, messages.render(result), device=self.device)
        self._seq += 1
        if len(self._waiting) == self.options.queue:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(result)

    def pump(self, link: Publisher) -> None:
        """Give the client as many as it may have, while there is a connection."""
        while self._sent and self._sent[0].is_published():
            self._sent.popleft()
            self.published += 1
        while self._waiting and link.is_connected and len(self._sent) < _WINDOW:
            raw = messages.render(replace(self._waiting.popleft(), dropped=self.dropped))
            self._sent.append(link.publish_result(self.source, raw, retain=self.options.retain))
