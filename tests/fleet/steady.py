"""A scripted device that comes back by itself, whatever dies at the other end.

It connects again, tells its newest events [wire-3.10] and its state anew, and sends what was not
acknowledged; it does what it is ordered as its script says, and keeps what it was asked and what
the broker acknowledged. One thread does all that; paho's only brings it messages.
"""

from __future__ import annotations

import queue
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edgefleet_agent.reporter import RECENT
from edgefleet_contract.messages import Message, open_order, render
from edgefleet_contract.orders import Order, Target
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.reported import Event, Presence, RunningModel
from edgefleet_contract.topics import Channel, topic
from tests.fleet.device import Identity, event_of, reported_of, running

_STEPS: Final = (Phase.ACCEPTED, Phase.DOWNLOADING, Phase.VERIFIED, Phase.SELFTEST)
_WENT_WELL: Final = (Phase.PROBATION, Phase.COMMITTED)


@dataclass
class Steady:
    """A device that lives through everything; `fails` says why it cannot run a target."""

    identity: Identity
    fleet: str
    fails: Callable[[Target], Reason | None] = lambda _: None
    models: tuple[RunningModel, ...] = ()
    acknowledged: set[tuple[str, int]] = field(default_factory=set)
    """Boot and number of each event that the broker took."""
    order: Order | None = None
    _phase: Phase = Phase.IDLE
    _reason: Reason | None = None
    _seq: int = 0

    def __post_init__(self) -> None:
        self.name = self.identity.name
        self.boot = f"boot-{time.monotonic_ns()}"
        self._work: queue.Queue[bytes | None] = queue.Queue()
        self._published: dict[int, threading.Event] = {}
        self._recent: deque[Event] = deque(maxlen=RECENT)
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._live, name=self.name, daemon=True)
        self._client = self._new_client()

    def _new_client(self) -> mqtt.Client:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=self.name, protocol=mqtt.MQTTv5)
        folder = self.identity.folder
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.load_cert_chain(folder / "device.crt", folder / "device.key")
        client.tls_set_context(context)
        client.reconnect_delay_set(1, 1)
        gone = Presence(self.name, self.boot, online=False, agent="0.1.0", ts=1)
        client.will_set(self._topic(Channel.ONLINE), render(gone), qos=1, retain=True)
        client.on_connect = lambda *_: self._work.put(None)
        client.on_message = lambda _client, _user, message: self._work.put(message.payload)
        client.on_publish = lambda _client, _user, mid, _code, _more: self._waiter(mid).set()
        return client

    def __enter__(self) -> Steady:
        self._client.connect_async(self.identity.host, self.identity.port, keepalive=10)
        self._client.loop_start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._work.put(b"")
        self._client.disconnect()
        self._client.loop_stop()
        self._thread.join(10)

    def version(self, slot: str) -> int:
        """What it runs in a slot; 0 for nothing."""
        return next((model.version for model in self.models if model.slot == slot), 0)

    def _live(self) -> None:
        while not self._is_over.is_set():
            found = self._work.get()
            if found is None:
                self._introduce()
            elif found:
                self._follow(open_order(found, self.identity.trust.director_ring))

    def _introduce(self) -> None:
        self._client.subscribe(self._topic(Channel.DESIRED), qos=1)
        here = Presence(self.name, self.boot, online=True, agent="0.1.0", ts=1)
        self._say(Channel.ONLINE, here, retain=True)
        for event in tuple(self._recent):
            self._say(Channel.EVENT, event)
        if self.order is not None:
            self._report()

    def _follow(self, order: Order) -> None:
        if self.order is not None and order.seq <= self.order.seq:
            return  # retained: it was seen before
        self.order, before = order, self.models
        known = {model.bundle_sha256 for model in before}
        news = [target for target in order.targets if target.bundle_sha256 not in known]
        reason = next((why for why in map(self.fails, news) if why is not None), None)
        for phase in _STEPS if news else ():
            self._tell(phase)
        if reason is not None:
            self._tell(Phase.FAILED, reason)
        else:
            self.models = tuple(running(target) for target in order.targets)
            for phase in _WENT_WELL:
                self._tell(phase)
        self._report()

    def _tell(self, phase: Phase, reason: Reason | None = None) -> None:
        assert self.order is not None
        self._phase, self._reason = phase, reason
        self._seq += 1
        event = event_of(self.name, self.order, phase, reason, boot=self.boot, seq=self._seq)
        self._recent.append(event)
        if self._say(Channel.EVENT, event):
            self.acknowledged.add((self.boot, event.seq))

    def _report(self) -> None:
        assert self.order is not None
        state = reported_of(self.name, self.order, self._phase, self.models, self._reason)
        self._say(Channel.REPORTED, state, retain=True)

    def _say(self, channel: Channel, message: Message, *, retain: bool = False) -> bool:
        """Publish, and wait for the acknowledgement over as many connections as it takes."""
        payload = render(message)
        sent = self._client.publish(self._topic(channel), payload, qos=1, retain=retain)
        waiter = self._waiter(sent.mid)
        while not waiter.wait(0.5):
            if self._is_over.is_set():
                return False
        with self._lock:
            del self._published[sent.mid]
        return True

    def _waiter(self, mid: int) -> threading.Event:
        with self._lock:
            return self._published.setdefault(mid, threading.Event())

    def _topic(self, channel: Channel) -> str:
        return topic(self.fleet, self.name, channel)
