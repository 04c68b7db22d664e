"""A device's link on a real broker, and a fleet that answers its requests as a script says."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgefleet_agent.adapters.mqtt_chunks import MqttChunks
from edgefleet_agent.adapters.mqtt_link import MqttLink
from edgefleet_agent.config import MqttConfig
from edgefleet_agent.identity import Enrolment, Identity
from edgefleet_contract.blocks import BlobRequest, Block, Status
from edgefleet_contract.bundle import Digest, chunk_list, sha256
from edgefleet_contract.messages import parse
from edgefleet_contract.topics import Channel, topic
from edgefleet_fleet.adapters.mosquitto import find_program
from tests.agent.hosting import until
from tests.fleet.device import Connection
from tests.fleet.running import free_port
from tests.fleet.stage import FLEET
from tests.fleet.test_broker_access import is_open

Answers = Callable[[BlobRequest, list[Block]], list[bytes]]


def honest(_: BlobRequest, blocks: list[Block]) -> list[bytes]:
    return [block.render() for block in blocks]


class Teller(Connection):
    """Has blobs; `answers` makes of the right blocks what is sent. `asked` are all requests."""

    def __init__(self, keys: Path, port: int) -> None:
        super().__init__(keys, "service", "127.0.0.1", port)
        self.blobs: dict[str, bytes] = {}
        self.asked: list[BlobRequest] = []
        self.answers: Answers = honest
        self.client.on_message = lambda _c, _u, m: self._answer(m.payload)

    def put(self, raw: bytes) -> Digest:
        for blob in (raw, chunk_list(raw)):
            self.blobs[sha256(blob)] = blob
        return sha256(raw)

    def _answer(self, payload: bytes) -> None:
        request = parse(BlobRequest, payload)
        self.asked.append(request)
        for raw in self.answers(request, self._blocks(request)):
            self.client.publish(topic(FLEET, request.device, Channel.BLOB_DATA), raw, qos=0)

    def _blocks(self, request: BlobRequest) -> list[Block]:
        name = f"{request.sha256}/delta/{request.base}" if request.base else request.sha256
        blob = self.blobs.get(name)
        if blob is None:
            return [Block(request.request, request.sha256, status=Status.UNKNOWN)]
        return [
            Block(
                request.request,
                request.sha256,
                offset,
                len(blob),
                blob[offset : offset + request.length],
            )
            for offset in request.offsets
        ]


@contextmanager
def telling(keys: Path, port: int) -> Iterator[Teller]:
    with Teller(keys, port) as teller:
        teller.subscribe(topic(FLEET, "a", Channel.BLOB_GET))
        yield teller


@contextmanager
def linked(identity: Identity, chunks: MqttChunks) -> Iterator[MqttLink]:
    """The device's own link, connected, its blocks given to `chunks`."""
    link = MqttLink(
        identity,
        MqttConfig(),
        boot_id="boot",
        on_order=lambda _: None,
        on_trust=lambda _name, _raw: None,
        on_connected=lambda: None,
        on_certificate=lambda _: None,
        on_block=chunks.arrived,
        on_expired=lambda: None,
    )
    chunks.attach(link)
    link.start()
    try:
        until(lambda: link.is_connected)
        yield link
    finally:
        link.stop()


def identity_of(keys: Path, port: int) -> Identity:
    """Device `a` of the broker in tests/fleet/test_broker_access.py."""
    where = Enrolment(FLEET, "a", "127.0.0.1", port)
    return Identity(where, b"", keys / "device.key", keys / "device.crt", keys / "ca.pem")


@contextmanager
def small_packets(keys: Path, most: int) -> Iterator[int]:
    """The broker of these keys once more, with packets of `most` bytes; its port."""
    port = free_port()
    text = (keys.parent / "broker" / "mosquitto.conf").read_text()
    text = re.sub(r"(?m)^listener \d+", f"listener {port}", text)
    text = re.sub(r"(?m)^max_packet_size \d+", f"max_packet_size {most}", text)
    conf = keys.parent / "small.conf"
    conf.write_text(text.replace("persistence true", "persistence false"))
    broker = subprocess.Popen([find_program(), "-c", str(conf)], stderr=subprocess.DEVNULL)
    try:
        until(lambda: is_open(port))
        yield port
    finally:
        broker.terminate()
        broker.wait(10)
