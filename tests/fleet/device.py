"""A scripted device: the contract, a certificate, and paho-mqtt; no agent.

`enrol` is what a device does first; `Device` connects as it and says what a test wants said.
"""

from __future__ import annotations

import queue
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AttributeOID, NameOID
from paho.mqtt.enums import CallbackAPIVersion

from edgefleet_agent.adapters.tuf_client import HttpMetadata, TufClient
from edgefleet_contract.bundle import sha256
from edgefleet_contract.capabilities import Capabilities
from edgefleet_contract.enrolment import EnrolRequest, EnrolResponse
from edgefleet_contract.messages import Message, open_order, parse, render
from edgefleet_contract.orders import Order
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.reported import Event, Presence, Reported, RunningModel
from edgefleet_contract.telemetry import ModelTelemetry, SystemTelemetry
from edgefleet_contract.topics import Channel, topic
from edgefleet_contract.trust import Trust, TrustFloors, parse_claim

PI5 = Capabilities(
    hw="pi5",
    arch="aarch64",
    board="Raspberry Pi 5",
    os="Debian 12",
    python="3.11.2",
    cpus=4,
    memory_bytes=8 * 1024**3,
    engines={"onnxruntime": "1.20.0"},
)


@dataclass(frozen=True)
class Identity:
    """What enrolment leaves on a device."""

    name: str
    folder: Path
    trust: Trust
    host: str
    port: int


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def csr_of(key: ec.EllipticCurvePrivateKey, name: str, seal_key: str = "") -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if seal_key:
        request = request.add_attribute(AttributeOID.UNSTRUCTURED_NAME, seal_key.encode())
    signed = request.sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def request_of(
    claim: str,
    name: str,
    key: ec.EllipticCurvePrivateKey,
    able: Capabilities = PI5,
    seal_key: str = "",
) -> EnrolRequest:
    csr = csr_of(key, name, seal_key)
    return EnrolRequest(parse_claim(claim).secret, name, csr, able, seal_key)


def enrol(url: str, claim: str, name: str, folder: Path) -> Identity:
    """A new key, a certificate for it, and what the root that the claim names vouches for."""
    key = new_key()
    answer = requests.post(
        f"{url}/api/v1/enrol", data=render(request_of(claim, name, key)), timeout=10
    )
    assert answer.status_code == 200, answer.text
    found = parse(EnrolResponse, answer.content, device=name)
    assert sha256(found.root.encode()) == parse_claim(claim).root_sha256
    client = TufClient(folder / "trust", found.root.encode())
    source = HttpMetadata(found.metadata)
    trust = client.refresh((source,), now=int(time.time()), floors=TrustFloors())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.pem").write_text(trust.policy.ca)
    (folder / "device.crt").write_text(found.certificate)
    (folder / "device.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Identity(name, folder, trust, found.mqtt_host, found.mqtt_port)


class Connection:
    """A client of the broker with somebody's certificate; what arrives is queued."""

    def __init__(self, folder: Path, stem: str, host: str, port: int, client_id: str = "") -> None:
        self.arrived: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._connected: queue.Queue[Any] = queue.Queue()
        self._subscribed: queue.Queue[Any] = queue.Queue()
        self.lost: queue.Queue[Any] = queue.Queue()
        self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5
        )
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.load_cert_chain(folder / f"{stem}.crt", folder / f"{stem}.key")
        self.client.tls_set_context(context)
        self.client.on_connect = lambda _c, _u, _f, code, _p: self._connected.put(code)
        self.client.on_subscribe = lambda _c, _u, mid, _codes, _p: self._subscribed.put(mid)
        self.client.on_disconnect = lambda _c, _u, _f, code, _p: self.lost.put(code)
        self.client.on_message = lambda _c, _u, m: self.arrived.put((m.topic, m.payload))
        self._host, self._port = host, port

    def __enter__(self) -> Connection:
        self.open()
        return self

    def open(self) -> None:
        self.client.connect(self._host, self._port, keepalive=10)
        self.client.loop_start()
        code = self._connected.get(timeout=10)
        assert not code.is_failure, code

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self) -> None:
        """Break the connection as a power cut does: no goodbye."""
        self.client.loop_stop()
        sock = self.client.socket()
        assert sock is not None
        sock.close()

    def subscribe(self, where: str) -> None:
        self.client.subscribe(where, qos=1)
        self._subscribed.get(timeout=10)

    def attempt(self, where: str, payload: bytes) -> None:
        """Publish what may be refused: by an answer, or (Mosquitto 2.0) by being cut off."""
        self.client.on_publish = lambda _c, _u, _mid, code, _p: self.lost.put(code)
        self.client.publish(where, payload, qos=1, retain=True)
        self.lost.get(timeout=10)

    def publish(self, where: str, payload: bytes, *, retain: bool = False) -> None:
        self.client.publish(where, payload, qos=1, retain=retain).wait_for_publish(10)


class Device(Connection):
    """An enrolled device that follows a script."""

    def __init__(self, identity: Identity, fleet: str, *, able: Capabilities = PI5) -> None:
        super().__init__(identity.folder, "device", identity.host, identity.port, identity.name)
        self.identity = identity
        self.name = identity.name
        self._fleet = fleet
        self._able = able
        self._seq = 0
        self.boot_id = f"boot-{time.monotonic_ns()}"
        self.models: tuple[RunningModel, ...] = ()

    def __enter__(self) -> Device:
        self.client.will_set(
            self.topic(Channel.ONLINE), render(self._presence(online=False)), qos=1, retain=True
        )
        self.open()
        self.say(Channel.ONLINE, self._presence(online=True), retain=True)
        self.subscribe(self.topic(Channel.DESIRED))
        return self

    def topic(self, channel: Channel) -> str:
        return topic(self._fleet, self.name, channel)

    def say(self, channel: Channel, message: Message, *, retain: bool = False) -> None:
        self.publish(self.topic(channel), render(message), retain=retain)

    def next_order(self, timeout: float = 10) -> Order:
        """The next order, opened with the trust of enrolment."""
        where, payload = self.arrived.get(timeout=timeout)
        assert where == self.topic(Channel.DESIRED)
        order = open_order(payload, self.identity.trust.director_ring)
        assert order.device == self.name
        return order

    @property
    def meant(self) -> str:
        """The filter that means this device alone."""
        return f"id={self.name}"

    def order_with(self, version: int, timeout: float = 10) -> Order:
        """The next order whose first target is this version; others are passed over."""
        deadline = time.monotonic() + timeout
        while True:
            order = self.next_order(max(0.1, deadline - time.monotonic()))
            if [target.version for target in order.targets] == [version]:
                return order

    def tell(self, order: Order, phase: Phase, reason: Reason | None = None) -> Event:
        """Tell a step of an install as an event."""
        self._seq += 1
        event = event_of(self.name, order, phase, reason, boot=self.boot_id, seq=self._seq)
        self.say(Channel.EVENT, event)
        return event

    def commit(self, order: Order) -> None:
        """Install at once, and report."""
        self.models = tuple(running(target) for target in order.targets)
        self.tell(order, Phase.COMMITTED)
        self.report(order, Phase.COMMITTED)

    def refuse(self, order: Order, reason: Reason) -> None:
        """Refuse, and report."""
        self.tell(order, Phase.FAILED, reason)
        self.report(order, Phase.FAILED, reason)

    def report(self, order: Order, phase: Phase, reason: Reason | None = None) -> None:
        state = reported_of(self.name, order, phase, self.models, reason, able=self._able)
        self.say(Channel.REPORTED, state, retain=True)

    def _presence(self, *, online: bool) -> Presence:
        return Presence(self.name, self.boot_id, online, "0.1.0", 1)


def running(target: Any) -> RunningModel:
    return RunningModel(
        target.slot, target.model, target.version, target.bundle_sha256, "v", "onnxruntime"
    )


def event_of(
    name: str,
    order: Order,
    phase: Phase,
    reason: Reason | None = None,
    *,
    boot: str = "boot",
    seq: int = 1,
) -> Event:
    return Event(
        device=name,
        boot_id=boot,
        seq=seq,
        ts=1_800_000_000,
        order_seq=order.seq,
        rollout=order.rollout,
        phase=phase,
        models=tuple(f"{target.model}@{target.version}" for target in order.targets),
        reason=reason,
        detail="as scripted" if reason else "",
        measurements={"load_ms": 1.5},
    )


def reported_of(
    name: str,
    order: Order,
    phase: Phase,
    models: tuple[RunningModel, ...],
    reason: Reason | None = None,
    *,
    able: Capabilities = PI5,
) -> Reported:
    return Reported(
        device=name,
        boot_id="boot",
        ts=1_800_000_000,
        agent="0.1.0",
        order_seq=order.seq,
        rollout=order.rollout,
        phase=phase,
        models=models,
        capabilities=able,
        reason=reason,
    )


def system_sample(name: str, ts: int = 1, **more: float) -> SystemTelemetry:
    fields: dict[str, Any] = {
        "cpu_ratio": 0.25,
        "memory_used_bytes": 1_000,
        "memory_total_bytes": 4_000,
        "disk_free_bytes": 9_000,
        "load1": 0.5,
        "uptime_seconds": 60.0,
        "agent_rss_bytes": 500,
        "temperature_celsius": 51.5,
        **more,
    }
    return SystemTelemetry(device=name, ts=ts, **fields)


def model_sample(name: str, slot: str = "digits", ts: int = 1) -> ModelTelemetry:
    return ModelTelemetry(
        device=name,
        ts=ts,
        slot=slot,
        model="digits",
        version=1,
        variant="v",
        engine="onnxruntime",
        requests=1234,
        failures=2,
        interval_requests=10,
        latency_p50_us=800,
        latency_p95_us=2400,
        worker_rss_bytes=1_000,
    )


def decode_order(envelope: bytes, trust: Trust) -> Order:
    return open_order(envelope, trust.director_ring)
