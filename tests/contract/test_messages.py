from __future__ import annotations

import json

import pytest

from edgefleet_contract import messages, topics
from edgefleet_contract.blocks import BlobRequest
from edgefleet_contract.bundle import sha256
from edgefleet_contract.capabilities import Capabilities
from edgefleet_contract.enrolment import EnrolPending
from edgefleet_contract.errors import Malformed
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason, explain
from edgefleet_contract.reported import Event, Presence, Reported
from edgefleet_contract.results import Result, ResultTensor
from edgefleet_contract.telemetry import SourceTelemetry
from edgefleet_contract.topics import Address, Channel

CAPABLE = Capabilities("arm64", "aarch64", "Pi 4", "Debian", "3.11.2", 4, 2**30, {"litert": "2.3"})
PRESENT = Presence("pi-1", "boot", True, "0.1.0", 5)
SCORES = ResultTensor("y", "FP32", (1, 2), (0.25, 0.75))
MESSAGES: list[messages.Message] = [
    SourceTelemetry("pi-1", 5000, "camera", "camera", "digits", 9, 7, 1, 1, 3, 0),
    Result(
        *("pi-1", "boot", 1, 5000, "camera", "digits", "2", "class"),
        outputs=(SCORES, ResultTensor("words", "BYTES", (1,), texts=("cat",))),
        tops=(1,),
        metadata={"file": "a.png"},
    ),
    PRESENT,
    Event("pi-1", "boot", 1, 5, 2, "r", Phase.FAILED, ("a@1",), Reason.NO_SPACE, "x", {"n": 1.5}),
    Reported("pi-1", "boot", 5, "0.1.0", 2, "r", Phase.IDLE, (), CAPABLE),
    EnrolPending("pi-1", "ab" * 32, 5),
    BlobRequest("pi-1", 7, sha256(b"blob"), 65_536, (0, 131_072)),
    BlobRequest("pi-1", 7, sha256(b"blob"), 65_536, (0,), base=sha256(b"old")),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_that_is_sent_is_the_message_that_arrives(message: messages.Message) -> None:
    assert messages.parse(type(message), messages.render(message), device="pi-1") == message


def test_a_message_of_another_device_than_its_topic_is_refused() -> None:
    raw = messages.render(PRESENT)
    with pytest.raises(Malformed, match="topic of 'pi-2'"):
        messages.parse(Presence, raw, device="pi-2")


def test_an_unknown_version_is_refused_and_an_unknown_field_is_not() -> None:
    value = json.loads(messages.render(PRESENT))
    more = json.dumps({**value, "new": {"x": None}}).encode()
    assert messages.parse(Presence, more) == PRESENT
    with pytest.raises(Malformed, match="schema"):
        messages.parse(Presence, json.dumps({**value, "schema": "edgefleet.presence/2"}).encode())


@pytest.mark.parametrize(
    "fields",
    [
        {"sha256": "x" * 64},
        {"base": "x" * 64},
        {"request": -1},
        {"request": 2**32},
        {"length": 0},
        {"length": 128 * 1024 + 1},
        {"offsets": []},
        {"offsets": [-1]},
        {"offsets": list(range(65))},
        {"offsets": ["0"]},
    ],
    ids=str,
)
def test_a_request_for_blocks_is_bounded(fields: dict[str, object]) -> None:
    value = json.loads(messages.render(MESSAGES[-1]))
    with pytest.raises(Malformed):
        messages.parse(BlobRequest, json.dumps({**value, **fields}).encode())


@pytest.mark.parametrize(
    "fields",
    [{"key_id": "ab"}, {"key_id": "AB" * 32}, {"retry_after_s": 0}, {"retry_after_s": 301}],
)
def test_a_wait_without_a_key_or_without_an_end_is_refused(fields: dict[str, object]) -> None:
    value = json.loads(messages.render(EnrolPending("pi-1", "ab" * 32, 5)))
    with pytest.raises(Malformed, match=next(iter(fields))):
        messages.parse(EnrolPending, json.dumps({**value, **fields}).encode())


def test_every_topic_splits_into_what_it_was_built_from() -> None:
    for channel in Channel:
        text = topics.topic("demo", "pi-1", channel)
        assert topics.match(text) == Address("demo", "pi-1", channel)
        assert text.count("/") <= 6


@pytest.mark.parametrize("name", ["", "+", "#", "a/b", "$SYS", "Ä", "a" * 65, "-x", "A"])
def test_a_name_that_could_reach_further_has_no_place_in_a_topic(name: str) -> None:
    with pytest.raises(Malformed):
        topics.topic("demo", name, Channel.DESIRED)


@pytest.mark.parametrize(
    "text", ["edgefleet/v2/f/d/online", "edgefleet/v1/f/d/other", "x", "a/b/c/d/e"]
)
def test_a_strange_topic_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        topics.match(text)


def test_a_device_finds_the_slot_that_it_is_asked_for_in_its_own_topics_only() -> None:
    asked = topics.request_topic("demo", "pi-1", "digits")
    assert topics.asked_slot("demo", "pi-1", asked) == "digits"
    for other in (
        topics.request_topic("demo", "pi-2", "digits"),
        topics.request_topic("other", "pi-1", "digits"),
        topics.response_topic("demo", "pi-1", "digits"),
        f"{asked}/request",
        "edgefleet/v1/demo/pi-1/predict/a/b/request",
        "edgefleet/v1/demo/pi-1/predict/+/request",
        "digits",
        "",
    ):
        assert topics.asked_slot("demo", "pi-1", other) is None


@pytest.mark.parametrize(
    "elsewhere",
    [
        "edgefleet/v1/demo/pi-1/reported",
        "edgefleet/v1/demo/pi-2/predict/digits/response",
        "edgefleet/v1/demo/pi-1/predict/other/response",
        "edgefleet/v1/demo/pi-1/predict/digits/response/",
        "edgefleet/v1/demo/pi-1/predict/digits/response/a/b",
        "edgefleet/v1/demo/pi-1/predict/digits/response/+",
        "edgefleet/v1/demo/pi-1/predict/digits/response/#",
        "edgefleet/v1/demo/pi-1/predict/digits/responses",
        "edgefleet/v1/demo/pi-1/predict/digits/response/../../../reported",
        "$SYS/broker",
        "",
    ],
)
def test_a_device_answers_nowhere_but_below_the_slot_that_was_asked(elsewhere: str) -> None:
    assert not topics.is_response_topic("demo", "pi-1", "digits", elsewhere)
    for name in ("", "line-4"):
        here = topics.response_topic("demo", "pi-1", "digits", name)
        assert topics.is_response_topic("demo", "pi-1", "digits", here)


def test_every_reason_has_a_sentence() -> None:
    sentences = [explain(reason) for reason in Reason]
    assert all(sentences)
    assert len(set(sentences)) == len(sentences)
