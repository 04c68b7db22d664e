"""One piece of work of the control room: a transaction, and what follows once it is committed.

Everything that changes the fleet goes through `Room.work()`. One piece runs at a time, over all
processes on one data base (the machines decide on what is stored, so two must not decide at once);
orders are published and watchers told only after the commit, so nobody hears of what did not
happen.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from edgefleet_contract import topics
from edgefleet_contract.errors import TransientError
from edgefleet_contract.keys import PrivateKey, PublicKey
from edgefleet_fleet.adapters.sql.store import Store, Transaction
from edgefleet_fleet.authority import Authority
from edgefleet_fleet.changes import Change, Changes
from edgefleet_fleet.config import Config
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.happenings import Happening, HistoryKind, of_audit
from edgefleet_fleet.ports import BrokerLink, Shelf
from edgefleet_fleet.records import AuditRow, OrderRow
from edgefleet_fleet.threads import Threads

log = logging.getLogger("edgefleet.fleet")

_TURN_S: Final = 20.0  # a broker that starts anew within a piece of work takes some of it
_RETRY_S: Final = 5

KEPT_BY_BROKER: Final = (
    topics.Channel.DESIRED,
    topics.Channel.ENROL_RESPONSE,
    topics.Channel.REPORTED,
    topics.Channel.ONLINE,
)
"""What is retained, of each device."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks for a change, and from which address; `guard` lets it, or raises (`guards.py`)."""

    who: str = "fleet"
    address: str = ""
    guard: Callable[[Transaction, int], None] | None = field(
        default=None, compare=False, repr=False
    )


@dataclass(slots=True)
class Work:
    """One transaction, the time that it happens at, and what is to follow."""

    tx: Transaction
    now: int
    actor: Actor
    orders: list[OrderRow] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    after: list[Callable[[], None]] = field(default_factory=list)
    events_keep: int = 2000

    def changed(self, noun: str, subject: str) -> None:
        """Watchers of this will be told."""
        self.changes.append(Change(noun, subject))

    def happened(self, device: str, kind: HistoryKind, what: Happening) -> None:
        """Leave an entry in the history of a device."""
        self.tx.history.add(device, kind, what, at=self.now, keep=self.events_keep)

    def record(self, what: str, subject: str, detail: str = "") -> None:
        """Leave a row in the audit trail; and in the history of the device that it is about."""
        row = AuditRow(self.now, self.actor.who, what, subject, detail, self.actor.address)
        self.tx.ledger.record(row)
        found = of_audit(what, detail, self.actor.who)
        if found is not None:
            self.happened(subject, *found)
        log.info("%s: %s %s %s", self.actor.who, what, subject, detail)


@dataclass(slots=True)
class Room:
    """What every part of the control room stands on."""

    fleet: str
    config: Config
    store: Store
    shelf: Shelf
    authority: Authority
    director: PrivateKey
    keys: DataDir
    base_url: str
    mqtt_host: str
    mqtt_port: int
    prefix: str = ""
    """Where its HTTP is below the port's root; `base_url` ends with it."""
    link: BrokerLink | None = None
    restart_broker: Callable[[], None] | None = None
    changes: Changes = field(default_factory=Changes)
    clock: Callable[[], float] = time.time
    threads: Threads = field(default_factory=Threads)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @contextlib.contextmanager
    def work(self, actor: Actor | None = None) -> Iterator[Work]:
        """One piece of work: committed at the end, forgotten when it raises.

        Raises:
            TransientError: the data base does not answer, or others were at it for too long.
        """
        with self._turn():
            with self.store.begin(decides=True) as tx:
                work = Work(
                    tx, int(self.clock()), actor or Actor(), events_keep=self.config.events_keep
                )
                if work.actor.guard is not None:
                    work.actor.guard(tx, work.now)
                yield work
            for device in work.cleared:
                self.clear(device)
            for order in work.orders:
                self.publish(order)
            for follow_up in dict.fromkeys(work.after):
                follow_up()
        self.changes.tell(work.changes)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=_TURN_S):
            raise TransientError("other changes take too long", retry_after_s=_RETRY_S)
        try:
            yield
        finally:
            self._lock.release()

    def make_next_director(self) -> PublicKey:
        """A director key that waits to be listed by a publisher."""
        return self.keys.next_key("director").public

    def take_director(self, listed: frozenset[str]) -> bool:
        """Use the director key that the policy lists; whether it is another than before."""
        if self.director.public.pem in listed:
            return False
        found = self.keys.promote_director(listed)
        if found is None:
            log.error("no director key of this control room is listed: no device takes its orders")
            return False
        self.director = found
        return True

    def publish(self, order: OrderRow) -> None:
        """Put an order on the broker, retained."""
        self._publish(order.device, order.envelope)

    def answer(self, device: str, payload: bytes) -> None:
        """Put a device's next certificate on the broker, retained until it is taken back."""
        if self.link is not None:
            topic = topics.topic(self.fleet, device, topics.Channel.ENROL_RESPONSE)
            self.link.publish(topic, payload)

    def clear(self, device: str) -> None:
        """Take all from the broker that it keeps for a device, or of it."""
        for channel in KEPT_BY_BROKER:
            if self.link is not None:
                self.link.publish(topics.topic(self.fleet, device, channel), b"")

    def _publish(self, device: str, payload: bytes) -> None:
        if self.link is not None:
            topic = topics.topic(self.fleet, device, topics.Channel.DESIRED)
            self.link.publish(topic, payload)
