"""Results on their way: bounded, in order, and whose they are is not their process's to say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from edgefleet_agent.sources.options import MqttSinkOptions
from edgefleet_agent.sources.outbox import MAX_BYTES, Outbox
from edgefleet_contract import messages
from edgefleet_contract.errors import Malformed
from edgefleet_contract.results import Result


@dataclass
class Sent:
    payload: bytes
    is_there: bool = False

    def is_published(self) -> bool:
        return self.is_there


@dataclass
class Broker:
    """What the agent's connection is to an outbox: it takes what it is given, and says when."""

    is_connected: bool = True
    sent: list[Sent] = field(default_factory=list)

    def publish_result(self, source: str, payload: bytes, *, retain: bool) -> Sent:
        assert (source, retain) == ("door", False)
        self.sent.append(Sent(payload))
        return self.sent[-1]

    def numbers(self) -> list[tuple[int, int]]:
        found = [messages.parse(Result, sent.payload, device="pi-1") for sent in self.sent]
        return [(result.seq, result.dropped) for result in found]


def told(**more: Any) -> dict[str, Any]:
    output = {"name": "y", "datatype": "FP32", "shape": [1], "data": [0.5]}
    return {"ts": 5, "version": "1", "cause": "first", "outputs": [output], **more}


def outbox(queue: int = 3) -> Outbox:
    return Outbox("pi-1", "boot", "door", "people", MqttSinkOptions(queue=queue))


def test_while_the_link_is_down_the_newest_are_kept_and_the_loss_is_said() -> None:
    box, broker = outbox(), Broker(is_connected=False)
    for _ in range(5):
        box.put(told())
        box.pump(broker)
    assert broker.sent == []
    assert box.dropped == 2
    broker.is_connected = True
    box.pump(broker)
    assert broker.numbers() == [(3, 2), (4, 2), (5, 2)]
    assert not box.is_empty
    for sent in broker.sent:
        sent.is_there = True
    box.pump(broker)
    assert (box.published, box.is_empty) == (3, True)


def test_no_more_are_with_the_client_than_it_acknowledges() -> None:
    box, broker = outbox(queue=100), Broker()
    for _ in range(40):
        box.put(told())
    box.pump(broker)
    assert len(broker.sent) == 16
    broker.sent[0].is_there = True
    box.pump(broker)
    assert len(broker.sent) == 17


def test_whose_a_result_is_stands_fast() -> None:
    box, broker = outbox(), Broker()
    box.put(told(device="pi-2", source="other", slot="other", boot_id="x", seq=99))
    box.pump(broker)
    result = messages.parse(Result, broker.sent[0].payload)
    assert (result.device, result.boot_id, result.seq) == ("pi-1", "boot", 1)
    assert (result.source, result.slot) == ("door", "people")


@pytest.mark.parametrize(
    "more",
    [
        {"outputs": "none"},
        {"outputs": [{"name": "y"}]},
        {"ts": -1},
        {"ts": "now"},
        {"cause": 1},
        {"extra": 1},
        {"metadata": {"file": "a\0b"}},
        {"metadata": {"file": "x" * MAX_BYTES}},
        {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [float("nan")]}]},
    ],
    ids=str,
)
def test_what_is_no_result_is_refused_and_takes_no_number(more: dict[str, Any]) -> None:
    box, broker = outbox(), Broker()
    with pytest.raises(Malformed):
        box.put(told(**more))
    box.put(told())
    box.pump(broker)
    assert broker.numbers() == [(1, 0)]
