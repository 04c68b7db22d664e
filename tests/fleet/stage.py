"""A control room with devices that answer as a test says: no broker, real store and signatures."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from edgefleet_contract import codec
from edgefleet_contract.bundle import parse_manifest
from edgefleet_contract.commands import Command, open_command
from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_contract.messages import open_order, render
from edgefleet_contract.order_policy import Policy
from edgefleet_contract.orders import Order
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.reported import RunningModel
from edgefleet_contract.topics import Channel, topic
from edgefleet_fleet import ceremony, rollout_views, views
from edgefleet_fleet.adapters.file_shelf import FileShelf
from edgefleet_fleet.adapters.mqtt_link import is_under
from edgefleet_fleet.adapters.sql.store import Store
from edgefleet_fleet.api_rollouts import RolloutBody
from edgefleet_fleet.config import Config
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.library import Received
from edgefleet_fleet.ports import Incoming
from edgefleet_fleet.publications import Publications
from edgefleet_fleet.records import Bundle
from edgefleet_fleet.services import Services, services_of
from edgefleet_fleet.users import hash_token
from edgefleet_fleet.wishes import Wish
from edgefleet_fleet.work import Actor, Room
from tests.contract.makers import write_bundle
from tests.fleet.device import event_of, new_key, reported_of, request_of, running

FLEET: Final = "demo"
TOKEN: Final = "the-operators-token"
ME: Final = Actor("tester")


class Outbox:
    """A link that keeps what was published: the retained state that a broker would have."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.sent: list[tuple[str, bytes, int]] = []
        self.is_connected = True

    def publish(self, topic: str, payload: bytes) -> None:
        self.retained[topic] = payload

    def publish_once(self, topic: str, payload: bytes, *, expires_s: int) -> None:
        self.sent.append((topic, payload, expires_s))

    def kept(self, pattern: str, *, until: str, timeout_s: float) -> dict[str, bytes]:
        return {at: raw for at, raw in self.retained.items() if is_under(at, pattern) and raw}

    async def run(self, *, take: object, connected: object) -> None:
        raise AssertionError("nothing connects here")


class Clock:
    """The time, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000

    def __call__(self) -> float:
        return float(self.now)


def open_services(
    folder: Path, clock: Clock, publisher: PrivateKey, roots: list[PrivateKey], store_url: str
) -> Services:
    """A whole control room without broker and sockets; `publisher` is trusted."""
    data = DataDir(folder)
    authority = data.prepare(FLEET, public_host="fleet.example")
    store = Store(store_url)
    store.migrate()
    shelf = FileShelf(data.blobs)
    shelf.prepare()
    room = Room(
        fleet=FLEET,
        config=Config(telemetry_keep=5),
        store=store,
        shelf=shelf,
        authority=authority,
        director=data.director(),
        keys=data,
        base_url="http://fleet.example:8080",
        mqtt_host="fleet.example",
        mqtt_port=8883,
        link=Outbox(),
        clock=clock,
    )
    publications = Publications(room, data.repository())
    found = services_of(room, publications)
    found.access.users.keep_local_admin(hash_token(TOKEN))
    hold_ceremony(found, publisher, roots)
    return found


def receive(services: Services, folder: Path, *, check: bool = True) -> Received:
    return services.library.receive(
        (folder / "bundle.json").read_bytes(),
        (folder / "model.sig").read_bytes(),
        check=check,
        actor=ME,
    )


def hold_ceremony(services: Services, publisher: PrivateKey, roots: list[PrivateKey]) -> None:
    """A root of these keys, two of which sign."""
    room = services.room
    identity = {
        "fleet": room.fleet,
        "ca": room.authority.pem,
        "director": room.director.public.pem,
        "repository": services.publications.repository.pem,
    }
    body = ceremony.begin(identity, roots, 2, publisher)
    root, targets = unpack(body, "root", "targets")
    services.publications.begin(root, targets, files_of(body), ME)


def unpack(body: dict[str, object], *names: str) -> list[bytes]:
    return [base64.b64decode(str(body[name])) for name in names]


def files_of(body: dict[str, object]) -> dict[str, bytes]:
    files = body["files"]
    assert isinstance(files, dict)
    return {path: base64.b64decode(text) for path, text in files.items()}


def trust_view(services: Services) -> rollout_views.View:
    with services.room.store.begin() as tx:
        return views.trust(services.publications, tx)


def add_publisher(services: Services, added: PrivateKey, roots: list[PrivateKey]) -> None:
    """The next root, with one publisher more."""
    body = ceremony.next_root(
        trust_view(services),
        roots[:2],
        lambda held: replace(held, publishers=(*held.publishers, added.public)),
    )
    services.publications.replace_root(unpack(body, "root")[0], actor=ME)


def publish(services: Services, body: dict[str, object]) -> None:
    services.publications.publish(unpack(body, "targets")[0], files_of(body), actor=ME)
    services.deployments.upkeep.follow_policy()


def release(services: Services, publisher: PrivateKey, folder: Path) -> None:
    """What `fleet push-model --key` does on the desk."""
    raw = (folder / "bundle.json").read_bytes()
    manifest = parse_manifest(raw)
    trust = trust_view(services)
    body = ceremony.release(trust, publisher, manifest.model, manifest.version, raw)
    publish(services, body)


def push(services: Services, folder: Path, *, check: bool = True) -> Bundle:
    received = receive(services, folder, check=check)
    for file in received.missing:
        services.uploads.put(file.sha256, io.BytesIO((folder / file.path).read_bytes()))
    bundle = received.bundle
    return services.library.complete(bundle.digest, bundle.signature_sha256, actor=ME)


def wish_of(wish: Wish, **more: object) -> Wish:
    """The wish in the words of the API."""
    policy = codec.encode(more.pop("policy", Policy()))
    fields = {"bundle": wish.bundle, "signature_sha256": wish.signature_sha256, "policy": policy}
    return RolloutBody.model_validate({**fields, **more}).wish()


@dataclass
class Stage:
    """A control room with devices that answer as the test says."""

    services: Services
    publisher: PrivateKey
    folder: Path
    models: dict[str, tuple[RunningModel, ...]] = field(default_factory=dict)
    seqs: dict[str, int] = field(default_factory=dict)

    def devices(self, *names: str) -> None:
        claim = self.services.enrolment.make_claim(uses=len(names), hours=1, actor=ME)[1]
        for name in names:
            request = request_of(claim.render(), name, new_key())
            self.services.enrolment.enrol(request, address="")

    def bundle(self, version: int, *, model: str = "digits") -> Wish:
        folder = write_bundle(
            self.folder / f"{model}{version}", self.publisher, model=model, version=version
        )
        found = push(self.services, folder)
        release(self.services, self.publisher, folder)
        return Wish(found.digest, found.signature_sha256)

    def roll_out(self, version: int, *, model: str = "digits", **more: object) -> str:
        wish = self.bundle(version, model=model)
        return self.services.deployments.create(wish_of(wish, **more), actor=ME)

    def order(self, name: str) -> Order | None:
        """What the broker would hold for a device, opened as the device does."""
        assert isinstance(self.services.room.link, Outbox)
        raw = self.services.room.link.retained.get(topic(FLEET, name, Channel.DESIRED))
        ring = KeyRing([self.services.room.director.public])
        return open_order(raw, ring) if raw else None

    def desired(self, name: str) -> list[tuple[str, int]]:
        order = self.order(name)
        return [(target.slot, target.version) for target in order.targets] if order else []

    def commit(self, name: str) -> None:
        order = self.order(name)
        assert order is not None
        self.models[name] = tuple(running(target) for target in order.targets)
        self.say(name, order, Phase.COMMITTED)

    def fail(self, name: str, reason: Reason = Reason.GOLDEN_MISMATCH) -> None:
        order = self.order(name)
        assert order is not None
        self.say(name, order, Phase.FAILED, reason)

    def say(self, name: str, order: Order, phase: Phase, reason: Reason | None = None) -> None:
        self.seqs[name] = self.seqs.get(name, 0) + 1
        event = event_of(name, order, phase, reason, seq=self.seqs[name])
        self.take(name, Channel.EVENT, render(event))
        self.report(name, order, phase, reason)

    def report(self, name: str, order: Order, phase: Phase, reason: Reason | None = None) -> None:
        state = reported_of(name, order, phase, self.models.get(name, ()), reason)
        self.take(name, Channel.REPORTED, render(state))

    def take(self, name: str, channel: Channel, payload: bytes) -> None:
        self.services.ingest.take([Incoming(topic(FLEET, name, channel), payload)])

    def commands(self, name: str) -> list[Command]:
        """What was sent to a device, opened as it does."""
        assert isinstance(self.services.room.link, Outbox)
        ring = KeyRing([self.services.room.director.public])
        where = topic(FLEET, name, Channel.COMMAND)
        return [
            open_command(raw, ring) for at, raw, _ in self.services.room.link.sent if at == where
        ]

    def view(self, rollout: str) -> rollout_views.View:
        with self.services.room.store.begin() as tx:
            return rollout_views.rollout(tx, rollout, now=int(self.services.room.clock()))

    def state(self, rollout: str) -> str:
        return str(self.view(rollout)["state"])
