"""The fleet's link on a real broker: more at once than the broker takes at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgefleet_contract.errors import TransientError
from edgefleet_contract.topics import Channel, topic, trust_topic
from edgefleet_fleet.adapters.mosquitto import Mosquitto
from edgefleet_fleet.adapters.mqtt_link import Endpoint, GmqttLink
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.ports import Incoming
from tests.fleet.running import until
from tests.fleet.stage import FLEET
from tests.fleet.test_broker_access import broker, who

__all__ = ["broker"]
pytestmark = pytest.mark.system


@contextlib.asynccontextmanager
async def linked(
    broker: tuple[Path, int], at_first: Callable[[], None] = lambda: None
) -> AsyncIterator[GmqttLink]:
    """The fleet's link, once it is up and `at_first` was done in a thread of its own."""
    keys, port = broker
    pems = (keys / "ca.pem", keys / "service.crt", keys / "service.key")
    link = GmqttLink(Endpoint("127.0.0.1", port, *pems), fleet=FLEET)
    loop, connected = asyncio.get_running_loop(), asyncio.Event()

    def on_connected() -> None:
        at_first()
        loop.call_soon_threadsafe(connected.set)

    running = link.run(take=lambda _: None, connected=on_connected, asked=lambda _: None)
    task = asyncio.create_task(running)
    try:
        async with asyncio.timeout(20):
            await connected.wait()
        yield link
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_orders_for_a_thousand_devices_at_once_all_arrive_and_the_newest_last(
    broker: tuple[Path, int],
) -> None:
    """Packet numbers run out at 200; what had none was once lost until the next connection."""
    wheres = [topic(FLEET, f"d{number}", Channel.DESIRED) for number in range(1000)]

    async def publish() -> None:
        async with linked(broker) as link:
            for payload in (b"old", b"new"):
                for where in wheres:
                    link.publish(where, payload)
            await asyncio.to_thread(until, lambda: seen() == dict.fromkeys(wheres, b"new"))

    with who(broker, "observer") as reader:
        reader.subscribe("#")

        def seen() -> dict[str, bytes]:
            return {where: raw for where, raw in list(reader.arrived.queue) if where in wheres}

        asyncio.run(publish())


def test_a_data_base_that_is_away_when_the_link_comes_up_is_asked_again(
    broker: tuple[Path, int],
) -> None:
    """Until then the broker lacks what the link is to put there."""
    tries: list[int] = []

    def at_first() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise TransientError("the data base does not answer")

    async def connect() -> None:
        async with linked(broker, at_first) as link:
            assert link.is_connected

    asyncio.run(connect())
    assert len(tries) == 2


def test_two_who_look_at_once_both_see_what_the_broker_keeps(broker: tuple[Path, int]) -> None:
    """As two doctors; the second once took the answers of the first."""
    where, last = topic(FLEET, "looked-at", Channel.DESIRED), trust_topic(FLEET, "timestamp")

    async def look() -> list[dict[str, bytes]]:
        async with linked(broker) as link:
            for at in (where, last):
                link.publish(at, b"kept")
            return list(await asyncio.gather(*(link._kept(where, last) for _ in range(2))))

    assert asyncio.run(look()) == [{where: b"kept"}] * 2


def test_a_broker_that_hangs_up_at_once_is_up_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    connect = asyncio.open_connection

    async def and_is_reset(
        host: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await connect(host, port)
        listener.setblocking(True)
        caller, _ = listener.accept()
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.close()  # at once, without a goodbye
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        return reader, writer

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        found = Mosquitto(DataDir(tmp_path), fleet=FLEET, listen="127.0.0.1", port=port)
        monkeypatch.setattr(asyncio, "open_connection", and_is_reset)
        runs: Any = SimpleNamespace(returncode=None)
        assert asyncio.run(found._is_up(runs))


def test_what_was_not_taken_when_the_link_ended_is_left_by_nobody_and_comes_again(
    broker: tuple[Path, int],
) -> None:
    keys, port = broker
    where, stuck = topic(FLEET, "a", Channel.EVENT), threading.Event()
    seen: list[str] = []

    async def run(*, end: bool) -> None:
        pems = (keys / "ca.pem", keys / "service.crt", keys / "service.key")
        link = GmqttLink(Endpoint("127.0.0.1", port, *pems), fleet=FLEET)
        loop, connected, came = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        wrong: list[object] = []
        loop.set_exception_handler(
            lambda _, said: wrong.append(said) if _is_odd(said) else None  # as the service does
        )

        def say(what: asyncio.Event) -> None:
            loop.call_soon_threadsafe(what.set)

        def take(messages: list[Incoming]) -> None:
            say(came)
            if end:
                stuck.wait()
                raise TransientError("the data base does not answer")
            seen.extend(message.topic for message in messages)

        running = link.run(
            take=take,
            connected=lambda: say(connected),
            asked=lambda _: None,
        )
        task = asyncio.create_task(running)
        async with asyncio.timeout(20):
            await connected.wait()
            if end:
                with who(broker, "device") as device:
                    await asyncio.to_thread(device.publish, where, b"an event")
            await came.wait()
        task.cancel()
        await asyncio.wait([task])
        stuck.set()
        await asyncio.sleep(0)
        left = [each for each in asyncio.all_tasks() if "_on_message" in repr(each)]
        assert (left, wrong) == ([], [])

    asyncio.run(run(end=True))
    asyncio.run(run(end=False))
    assert seen == [where]


def _is_odd(said: dict[str, object]) -> bool:
    return not isinstance(said.get("exception"), asyncio.CancelledError)
