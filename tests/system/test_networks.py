"""Two of the bad networks, and the link that makes them. `make networks` runs all."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.system.network import DEVICE, FAIR, FLEET, Link, Namespace, Weather, require_namespaces
from tests.system.networks import PI, SCENARIOS, Scenario, open_far_site, spoken

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    require_namespaces()


def scenario(name: str) -> Scenario:
    return next(one for one in SCENARIOS if one.name == name)


def test_a_rollout_completes_over_bad_links_and_a_dead_one_is_noticed(tmp_path: Path) -> None:
    with open_far_site(tmp_path, keepalive_s=8) as site:
        for name, most in (("loss 15 %", 2.5), ("404 for a while", 1.5)):
            found = replace(scenario(name), size=300_000, limit_s=100).run(site)
            assert found.completed, f"{found}\n{spoken(site)}"
            assert found.ratio < most
        seen = len(site.log(PI))
        site.link.forget()
        site.wait(
            "the agent to notice within a keep-alive, not two",
            lambda: "disconnected from the broker" in site.log(PI)[seen:],
            seconds=13,
        )
        site.wait("a new link", lambda: " connected to the broker" in site.log(PI)[seen:])


@contextmanager
def joined(weather: Weather) -> Iterator[tuple[Link, socket.socket, socket.socket]]:
    """A link, and a UDP socket at each end of it that is connected to the other."""
    with ExitStack() as opened:
        fleet, device = opened.enter_context(Namespace()), opened.enter_context(Namespace())
        link = opened.enter_context(Link(fleet, device, weather))
        ends = []
        for namespace, own in ((fleet, FLEET), (device, DEVICE)):
            with namespace.entered():
                end = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                end.bind((own, 5000))
                end.settimeout(5)
                ends.append(end)
        ends[0].connect((DEVICE, 5000))
        ends[1].connect((FLEET, 5000))
        yield link, ends[0], ends[1]


def received(end: socket.socket, seconds: float = 0.3) -> list[bytes]:
    """What arrives until nothing does for so long."""
    end.settimeout(seconds)
    found = []
    try:
        while True:
            found.append(end.recv(2048))
    except TimeoutError:
        return found


def test_a_fair_link_carries_every_packet_both_ways() -> None:
    with joined(FAIR) as (link, fleet, device):
        fleet.send(b"order")
        assert device.recv(100) == b"order"
        device.send(b"event")
        assert fleet.recv(100) == b"event"
        assert link.to_device_bytes == len(b"order") + 28  # the headers of IP and UDP


@pytest.mark.parametrize(
    ("weather", "expected"),
    [
        pytest.param(Weather(loss=1.0), [], id="lost"),
        pytest.param(Weather(is_cut=True), [], id="cut"),
        pytest.param(Weather(duplicate=1.0), [b"x" * 1000] * 2, id="twice"),
        pytest.param(Weather(corrupt=1.0), [], id="dropped for its checksum"),
    ],
)
def test_a_link_does_to_a_packet_what_the_weather_says(
    weather: Weather, expected: list[bytes]
) -> None:
    with joined(weather) as (_, fleet, device):
        fleet.send(b"x" * 1000)
        assert received(device) == expected


def test_a_link_is_late_and_narrow_as_told() -> None:
    with joined(Weather(delay_s=0.2, rate=80_000)) as (_, fleet, device):
        begun = time.monotonic()
        for _ in range(4):
            fleet.send(bytes(972))  # 1,000 bytes with headers: a tenth of a second
        for _ in range(4):
            device.recv(1000)
        assert 0.6 <= time.monotonic() - begun < 2


def test_a_link_that_flaps_is_up_and_down() -> None:
    with joined(Weather(up_s=0.2, down_s=0.2)) as (link, fleet, device):
        for _ in range(40):
            fleet.send(b"tick")
            time.sleep(0.02)
        arrived = len(received(device))
        assert 0 < arrived < 40
        assert link.lost == 40 - arrived


def test_a_blocked_port_and_a_forgotten_connection_are_silent_and_others_are_not() -> None:
    with ExitStack() as opened:
        fleet, device = opened.enter_context(Namespace()), opened.enter_context(Namespace())
        link = opened.enter_context(Link(fleet, device))
        with fleet.entered():
            server = opened.enter_context(socket.create_server((FLEET, 80)))
        with device.entered():
            first = opened.enter_context(socket.create_connection((FLEET, 80), timeout=2))
        accepted = opened.enter_context(server.accept()[0])  # now both ends have the connection
        link.forget()
        first.send(b"anybody there?")
        assert received(accepted) == []
        with device.entered():
            second = opened.enter_context(socket.create_connection((FLEET, 80), timeout=2))
            second.send(b"hello")
            assert opened.enter_context(server.accept()[0]).recv(5) == b"hello"
            link.weather = replace(FAIR, blocked=frozenset({80}))
            with pytest.raises(TimeoutError):
                socket.create_connection((FLEET, 80), timeout=0.5)
