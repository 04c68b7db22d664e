"""Where attacks on the publishers' word are tried: a control room, a thief in its way, a device.

The repository is made by the fleet's own code, on a real data base; a device has the real keeper,
TUF client and journal, and hears by HTTP, by retained messages or from a stick. `lies` stand
before the documents that are honest: whoever holds the network, or a key, fills them.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest
from tuf.api.metadata import Metadata

from edgefleet_agent import install, policy
from edgefleet_agent.adapters.journal import Journal
from edgefleet_agent.adapters.mqtt_link import _document
from edgefleet_agent.adapters.tuf_client import MemoryMetadata, TufClient
from edgefleet_agent.device import Device
from edgefleet_agent.install_commands import Reconsider
from edgefleet_agent.install_events import OrderTaken, TrustSeen
from edgefleet_agent.keeper import STICK, TrustKeeper
from edgefleet_contract.bundle import sha256
from edgefleet_contract.errors import PeerError
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.messages import seal_time
from edgefleet_contract.orders import Order, SignedTime
from edgefleet_contract.reasons import Reason
from edgefleet_contract.topics import trust_topic
from edgefleet_contract.trust import (
    FLEET_POLICY,
    REVOKED_POLICY,
    FleetPolicy,
    RevokedPolicy,
    Trust,
    TrustFloors,
    release_path,
    render_policy,
)
from edgefleet_fleet import tuf_repo
from edgefleet_fleet.adapters.file_shelf import FileShelf
from edgefleet_fleet.adapters.sql.store import Store, sqlite_url
from edgefleet_fleet.config import Config
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.publications import Publications, Published
from edgefleet_fleet.work import Actor, Room
from tests.fleet.stage import Outbox

FLEET: Final = "demo"
DAY: Final = 86_400
WAYS: Final = ("http", "mqtt", "stick")
"""How a device hears what publishers say."""
Behaviour = Callable[[BaseHTTPRequestHandler], None]


class ControlRoom:
    """A fleet after its root ceremony; `now` is its clock, `lies` what a thief serves instead."""

    def __init__(self, folder: Path) -> None:
        self.now = int(time.time())
        self.roots = [PrivateKey.generate_ed25519() for _ in range(3)]
        self.publisher = PrivateKey.generate_p256()
        self.lies: dict[str, bytes | None] = {}
        self.behave: Behaviour | None = None
        self.url = ""
        data = DataDir(folder)
        authority = data.prepare(FLEET, public_host="fleet.example")
        store = Store(sqlite_url(data.database))
        store.migrate()
        self.online, self.director = data.repository(), data.director()
        self._room = Room(
            fleet=FLEET,
            config=Config(),
            store=store,
            shelf=FileShelf(data.blobs),
            authority=authority,
            director=self.director,
            keys=data,
            base_url="http://fleet.example:8080",
            mqtt_host="fleet.example",
            mqtt_port=8883,
            link=Outbox(),
            clock=lambda: float(self.now),
        )
        self.publications = Publications(self._room, self.online)
        policy = FleetPolicy(FLEET, authority.pem, (self.director.public.pem,))
        self.files = {
            FLEET_POLICY: render_policy(policy),
            REVOKED_POLICY: render_policy(RevokedPolicy()),
        }
        self.policy = policy
        keys = tuf_repo.RootKeys(
            tuple(key.public for key in self.roots), 2, (self.publisher.public,), self.online.public
        )
        self.root = self.sign(tuf_repo.make_root(keys, version=1, now=self.moment), *self.roots[:2])
        targets = tuf_repo.edit_targets(None, now=self.moment, put=self.files)
        self.publications.begin(
            self.root, self.sign(targets, self.publisher), self.files, Actor("test")
        )

    def close(self) -> None:
        self._room.store.close()

    @property
    def moment(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)

    @property
    def current(self) -> Published:
        with self._room.store.begin() as tx:
            return self.publications.require(tx)

    @staticmethod
    def sign(raw: bytes, *keys: PrivateKey) -> bytes:
        for key in keys:
            raw = tuf_repo.sign(raw, key)
        return raw

    # --- what its people do ----------------------------------------------------------------------

    def release(self, version: int) -> None:
        """A publisher releases a version of `digits`, or signs anew."""
        self.publish({release_path("digits", version): b"bundle %d" % version})

    def publish(self, put: dict[str, bytes]) -> None:
        policies = {path: raw for path, raw in put.items() if path in self.files}
        targets = tuf_repo.edit_targets(self.current.targets, now=self.moment, put=put)
        signed = self.sign(targets, self.publisher)
        self.publications.publish(signed, policies, actor=Actor("test"))

    def direct_by(self, director: PrivateKey) -> None:
        """The publishers replace the director."""
        self.policy = replace(self.policy, directors=(director.public.pem,))
        self.director = director
        self.publish({FLEET_POLICY: render_policy(self.policy)})

    def new_root(self, *signers: PrivateKey, **changes: object) -> bytes:
        """The next root document, with `RootKeys` fields changed; not yet in force."""
        keys = replace(tuf_repo.read_root(self.current.root), **changes)  # type: ignore[arg-type] # fields
        version = tuf_repo.version_of(self.current.root) + 1
        return self.sign(tuf_repo.make_root(keys, version=version, now=self.moment), *signers)

    def rotate(self, *signers: PrivateKey, **changes: object) -> None:
        """Put the next root in force; `repository` takes a private key."""
        fresh = changes.get("repository")
        if isinstance(fresh, PrivateKey):
            self.online, changes["repository"] = fresh, fresh.public
            self.publications = Publications(self._room, fresh)
        root = self.new_root(*(signers or self.roots[:2]), **changes)
        self.publications.replace_root(root, actor=Actor("test"))

    # --- what a thief does -----------------------------------------------------------------------

    def mirror(self) -> dict[str, bytes]:
        """Every document as it is now, to be played back later."""
        with self._room.store.begin() as tx:
            return {name: tx.trust.get(name) or b"" for name in tx.trust.names()}

    def play_back(self, old: dict[str, bytes]) -> None:
        """From now on, serve these and nothing that came later."""
        self.lies = {**dict.fromkeys(self.mirror()), **old}

    def forge(
        self,
        *,
        put: dict[str, bytes] | None = None,
        publisher: PrivateKey | None = None,
        online: PrivateKey | None = None,
        timestamp: int | None = None,
        numbered: int | None = None,
        ends: int | None = None,
    ) -> None:
        """Serve newer targets, snapshot and timestamp, signed with the keys that the thief has.

        Without a publisher's key the targets stay what they are. `timestamp` and `numbered` are
        the versions of timestamp and targets; `ends` dates snapshot and timestamp.
        """
        targets = self.current.targets
        if publisher is not None:
            edited = tuf_repo.edit_targets(targets, now=self.moment, put=put or {})
            if numbered is not None:
                metadata = Metadata.from_bytes(edited)
                metadata.signed.version = numbered
                edited = metadata.to_bytes()
            targets = self.sign(edited, publisher)
        key = online or self.online
        made = datetime.fromtimestamp(ends - 2 * DAY, UTC) if ends else self.moment
        number = tuf_repo.version_of(self.current.snapshot) + 1
        snapshot = tuf_repo.make_snapshot(targets, version=number, now=made, key=key)
        highest = timestamp or tuf_repo.version_of(self.current.timestamp) + 1
        self.lies |= {
            f"{tuf_repo.version_of(targets)}.targets.json": targets,
            f"{number}.snapshot.json": snapshot,
            "timestamp.json": tuf_repo.make_timestamp(snapshot, version=highest, now=made, key=key),
        }
        for path, raw in (put or {}).items():
            if path in self.files:
                folder, _, name = path.rpartition("/")
                self.lies[f"targets/{folder}/{sha256(raw)}.{name}"] = raw

    # --- what is heard of it ---------------------------------------------------------------------

    def serve(self, name: str) -> bytes | None:
        """A document by its name: a lie, where there is one."""
        if name in self.lies:
            return self.lies[name]
        return self.mirror().get(name)

    def retained(self) -> dict[str, bytes]:
        """What the broker holds, by the name that a device gives it."""
        assert isinstance(self._room.link, Outbox)
        self.publications.tell_all()
        prefix = trust_topic(FLEET, "")
        topics = self._room.link.retained
        held = {_document(topic.removeprefix(prefix)): raw for topic, raw in topics.items()}
        for name, raw in self.lies.items():
            folder, _, last = name.rpartition("/")
            bare = "/".join(part for part in (folder, last.partition(".")[2]) if part)
            keeps_number = name == "timestamp.json" or name.endswith(".root.json")
            if raw is not None:
                held[name if keeps_number else bare] = raw
            elif keeps_number:
                held.pop(name, None)
        return held

    def told(self, moment: int, director: PrivateKey | None = None) -> bytes:
        """A signed time, as stands on `-/trust/time`."""
        return seal_time(SignedTime(FLEET, moment), director or self.director)


@contextmanager
def control_room(folder: Path) -> Iterator[ControlRoom]:
    """A control room whose documents are had over HTTP, lies first."""
    room = ControlRoom(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                if room.behave is not None:
                    room.behave(self)
                    return
                found = room.serve(self.path.lstrip("/"))
                self.send_response(404 if found is None else 200)
                self.end_headers()
                self.wfile.write(found or b"")
            except OSError:
                return  # the client had enough

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    room.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield room
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        room.close()


@dataclass
class Board:
    """A device: its state folder, and a clock that is `skew` seconds off; `clock` stops it."""

    folder: Path
    room: ControlRoom
    way: str = "http"
    skew: int = 0
    clock: int | None = None
    state: Device = field(default_factory=Device)
    keeper: TrustKeeper = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.boot()

    @property
    def cache(self) -> Path:
        return self.folder / "trust"

    def boot(self) -> None:
        """Start, from what is on the disk."""
        self.journal = Journal(self.folder)
        self.state = self.journal.load()
        self.keeper = TrustKeeper(
            TufClient(self.cache, self.room.root),
            self.folder,
            url=self.room.url if self.way == "http" else "",
            floors=lambda: self.state.trust,
            time_floor=lambda: self.state.time_floor,
            clock=lambda: self.room.now + self.skew if self.clock is None else self.clock,
        )
        asyncio.run(self.keeper.load())

    def refresh(self) -> Trust:
        """Ask, as the installer does: what was believed is durable afterwards."""
        self._listen()
        return self.ask()

    def ask(self, *urls: str) -> Trust:
        """The same, of what was heard already and of these addresses."""
        return self._follow(asyncio.run(self.keeper.refresh(urls)))

    def judge(self, order: Order) -> Trust:
        """What an order is judged by."""
        self._listen()
        return self._follow(asyncio.run(self.keeper.for_order(order)))

    def take(self, order: Order) -> Reason | None:
        """Judge an order as the installer does, and take it up; why not, where not."""
        verdict = policy.judge(order, self.state, fleet=FLEET, name="pi-1", clock=self.keeper.now)
        if isinstance(verdict, policy.Accept):
            try:
                verdict = policy.judge_releases(order, self.judge(order))
            except PeerError as error:
                return error.reason
        if isinstance(verdict, policy.Refuse):
            return verdict.reason
        self.state, commands = install.step(self.state, OrderTaken(order))
        if Reconsider(order) in commands:  # it took the place of one that was on its way
            self.state, _ = install.step(self.state, OrderTaken(order))
        self.journal.save(self.state)
        return None

    def hear_time(self, raw: bytes) -> None:
        """A signed time arrives."""
        self.keeper.learn_time(raw, FLEET)

    def refused(self) -> Reason:
        """Why what is served now is not believed; what was known before still is."""
        before, trust = self.state, self.keeper.trust
        with pytest.raises(PeerError) as caught:
            self.refresh()
        assert (self.state, self.keeper.trust) == (before, trust)
        assert caught.value.reason is not None
        return caught.value.reason

    @property
    def seen(self) -> TrustFloors:
        """What the journal holds."""
        return self.state.trust

    def _follow(self, trust: Trust) -> Trust:
        event = TrustSeen(trust.versions, self.keeper.learned_time)
        self.state, _ = install.step(self.state, event)
        self.journal.save(self.state)
        return trust

    def _listen(self) -> None:
        if self.way == "mqtt":
            self.keeper.broker = MemoryMetadata()
            for name, raw in self.room.retained().items():
                self.keeper.broker.put(name, raw)
        elif self.way == "stick":
            stick = self.folder / STICK
            shutil.rmtree(stick, ignore_errors=True)
            for name in {*self.room.mirror(), *self.room.lies}:
                raw = self.room.serve(name)
                if raw is not None:
                    (stick / name).parent.mkdir(parents=True, exist_ok=True)
                    (stick / name).write_bytes(raw)
