"""Requests over the broker, as values: where they are answered, how many, in which words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_agent.sources.requests import (
    JSON_SIZE,
    Rate,
    Request,
    answer_topic,
    answered,
    headers_of,
    refused,
)
from edgefleet_contract.topics import response_topic

HERE = response_topic("demo", "pi-1", "digits")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("", HERE),
        (HERE, HERE),
        (f"{HERE}/line-4", f"{HERE}/line-4"),
        ("edgefleet/v1/demo/pi-1/reported", None),
        ("edgefleet/v1/demo/pi-2/predict/digits/response", None),
        ("edgefleet/v1/demo/pi-1/predict/others/response", None),
        (f"{HERE}/a/b", None),
        (f"{HERE}/../../../online", None),
        ("#", None),
    ],
)
def test_an_answer_goes_below_the_slot_that_was_asked_or_nowhere(
    asked: str, found: str | None
) -> None:
    assert answer_topic("demo", "pi-1", Request("digits", b"", asked)) == found


@given(st.text())
def test_no_text_makes_a_device_answer_elsewhere(text: str) -> None:
    found = answer_topic("demo", "pi-1", Request("digits", b"", text))
    assert found is None or found == HERE or found.startswith(f"{HERE}/")


@pytest.mark.parametrize(
    "size",
    ["", "-1", "1.5", "1\r\nX: y", "²", "9" * 10, " 5", "five"],
)
def test_what_says_no_length_reaches_no_header(size: str) -> None:
    assert headers_of(Request("digits", b"", properties={JSON_SIZE: size})) is None


def test_a_request_has_the_headers_of_http() -> None:
    assert headers_of(Request("digits", b"{}")) == {"Content-Type": "application/json"}
    binary = headers_of(Request("digits", b"{}", properties={JSON_SIZE: "2", "cookie": "x"}))
    assert binary == {"Content-Type": "application/octet-stream", JSON_SIZE: "2"}


def test_an_answer_has_what_http_would_have_said() -> None:
    request = Request("digits", b"{}", correlation=b"\x00\x01")
    headers = {"content-type": "a/b", "edgefleet-model-version": "3", "date": "now"}
    found = answered(request, HERE, 200, headers, b"body")
    assert (found.topic, found.body, found.correlation) == (HERE, b"body", b"\x00\x01")
    assert found.properties == {"status": "200", "edgefleet-model-version": "3"}
    assert found.content_type == "a/b"
    busy = refused(request, HERE, 503, "busy", retry_after_s=1)
    assert busy.properties == {"status": "503", "retry-after": "1"}
    assert json.loads(busy.body) == {"error": "busy"}


@given(st.floats(0.1, 50), st.lists(st.floats(0, 0.5), max_size=200))
def test_in_no_stretch_of_time_are_there_more_than_the_rate_and_one_burst(
    per_s: float, pauses: list[float]
) -> None:
    rate, now, taken = Rate(per_s), 100.0, []
    for pause in pauses:
        now += pause
        if rate.allows(now):
            taken.append(now)
    burst = max(1.0, per_s)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            count = last - first + 1
            assert count <= burst + (taken[last] - taken[first]) * per_s + 1e-6


def test_a_rate_below_one_a_second_allows_one_now_and_then() -> None:
    rate = Rate(0.5)
    assert [rate.allows(now) for now in (0.0, 1.0, 2.1, 3.0, 4.2)] == [
        True,
        False,
        True,
        False,
        True,
    ]
