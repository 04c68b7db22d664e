"""What devices say, and what is dropped."""

from __future__ import annotations

import pytest

from edgefleet_contract.messages import render
from edgefleet_contract.reported import Presence
from edgefleet_contract.topics import Channel, topic
from edgefleet_fleet import metrics, views
from edgefleet_fleet.ports import Incoming
from edgefleet_fleet.records import Device
from edgefleet_fleet.services import Services
from tests.fleet.device import model_sample, system_sample
from tests.fleet.stage import FLEET, ME, Clock, Stage


def message(name: str, channel: Channel, payload: bytes, *, retained: bool = False) -> Incoming:
    return Incoming(topic(FLEET, name, channel), payload, retained)


def test_telemetry_is_on_the_device_afterwards(stage: Stage, services: Services) -> None:
    stage.devices("a")
    stage.roll_out(1)
    stage.commit("a")
    stage.take("a", Channel.TELEMETRY_SYSTEM, render(system_sample("a")))
    stage.take("a", Channel.TELEMETRY_MODEL, render(model_sample("a")))
    with services.room.store.begin() as tx:
        view = views.device(tx, "a")
        (listed,) = views.devices(tx)
    assert view["telemetry"]["system"]["temperature_celsius"] == 51.5
    assert view["telemetry"]["models"]["digits"]["latency_p95_us"] == 2400
    assert listed["telemetry"] == view["telemetry"]


@pytest.mark.parametrize(
    ("where", "payload", "cause"),
    [
        ("edgefleet/v1/demo/a/event", b"not json", "malformed"),
        ("edgefleet/v1/demo/a/event", b'{"schema":"edgefleet.event/9"}', "malformed"),
        ("edgefleet/v1/demo/a/online", render(Presence("b", "x", True, "1", 1)), "malformed"),
        ("edgefleet/v1/other/a/online", render(Presence("a", "x", True, "1", 1)), "malformed"),
        ("edgefleet/v1/demo/a/desired", b"{}", "malformed"),
        ("edgefleet/v1/demo/A B/online", b"{}", "malformed"),
        ("edgefleet/v1/demo/a/telemetry/unknown", b"{}", "malformed"),
        ("edgefleet/v1/demo/x/online", render(Presence("x", "x", True, "1", 1)), "unknown_device"),
    ],
)
def test_what_is_not_ours_is_dropped_and_counted_and_stops_nothing(
    stage: Stage, services: Services, where: str, payload: bytes, cause: str
) -> None:
    stage.devices("a", "b")
    good = message("b", Channel.ONLINE, render(Presence("b", "x", True, "1", 1)))
    services.ingest.take([Incoming(where, payload), good])
    assert services.ingest.dropped == {cause: 1}
    assert services.ingest.taken == {"online": 1}
    with services.room.store.begin() as tx:
        assert {device.id: device.online for device in tx.devices.list()} == {
            "a": False,
            "b": True,
        }
    assert f'edgefleet_messages_dropped_total{{cause="{cause}"}} 1' in metrics.text(services)


def test_a_cleared_topic_is_nothing(stage: Stage, services: Services) -> None:
    stage.devices("a")
    services.ingest.take([message("a", Channel.REPORTED, b"")])
    assert (services.ingest.taken, services.ingest.dropped) == ({}, {})


def test_what_the_broker_had_kept_is_no_sign_of_life(
    stage: Stage, services: Services, clock: Clock
) -> None:
    stage.devices("a")
    online = render(Presence("a", "x", True, "1", 1))
    services.ingest.take([message("a", Channel.ONLINE, online, retained=True)])
    assert stage_device(services).seen_at == 0
    clock.now += 5
    services.ingest.take([message("a", Channel.ONLINE, online)])
    assert stage_device(services).seen_at == clock.now


def stage_device(services: Services) -> Device:
    with services.room.store.begin() as tx:
        found = tx.devices.get("a")
    assert found is not None
    return found


def test_a_forgotten_device_is_not_heard(stage: Stage, services: Services) -> None:
    stage.devices("a")
    services.enrolment.forget("a", actor=ME)
    stage.take("a", Channel.ONLINE, render(Presence("a", "x", True, "1", 1)))
    assert services.ingest.dropped == {"unknown_device": 1}
