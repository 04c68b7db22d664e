"""The fleet's connection to its broker, on gmqtt: MQTT 5, mutual TLS, acknowledged after commit.

A client id of its own and a session expiry of seven days: what devices sent while the service was
down waits at the broker. Messages are taken in batches, in order, on a worker thread; each is
acknowledged only when the batch was committed. When taking fails (a data base that does not
answer), the batch is tried again, with back-off, and nothing is acknowledged meanwhile.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gmqtt

from edgefleet_contract.errors import EdgefleetError, TransientError
from edgefleet_contract.topics import FROM_DEVICE, Channel, every_device
from edgefleet_fleet.authority import SERVICE
from edgefleet_fleet.ports import Incoming
from edgefleet_fleet.threads import Threads

log = logging.getLogger("edgefleet.link")

_SESSION_S: Final = 7 * 24 * 3600
_WINDOW: Final = 500  # messages in flight, and the most that one transaction takes
_CONNECT_S: Final = 10.0
_MAX_DELAY_S: Final = 15.0
_FULL_BYTES: Final = 512 * 1024  # what may wait for the socket before a block is held back
_FULL_S: Final = 0.005
_ASKS: Final = f"/{Channel.BLOB_GET}"
_NO_RECONNECT: Final = -2  # gmqtt: fewer than any count of failures; reconnecting is our loop's


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the broker is, and the PEM files to be let in."""

    host: str
    port: int
    cafile: Path
    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class _Waiting:
    message: Incoming
    done: asyncio.Future[int]


@dataclass(slots=True)
class _Look:
    """What the broker keeps under a pattern, until a topic behind it arrived."""

    pattern: str
    until: str
    found: dict[str, bytes]
    done: asyncio.Future[None]

    def takes(self, topic: str, payload: bytes) -> bool:
        """Whether a message is an answer to the look."""
        if topic == self.until:
            if not self.done.done():
                self.done.set_result(None)
            return True
        if is_under(topic, self.pattern):
            self.found[topic] = payload
            return True
        return False


class GmqttLink:
    """See `ports.BrokerLink`."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        fleet: str,
        client_id: str = SERVICE,
        threads: Threads | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._threads = threads or Threads()
        self._fleet = fleet
        self._client_id = client_id
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked: Callable[[Incoming], None] = lambda _: None
        self._inbox: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._unacknowledged: set[asyncio.Future[int]] = set()
        self._lost = asyncio.Event()
        self._outbox: dict[str, bytes] = {}
        self._has_more = asyncio.Event()
        self._look: _Look | None = None
        self._looking = asyncio.Lock()

    @property
    def is_connected(self) -> bool:
        """Whether the broker answers now."""
        return self._client is not None

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish retained, QoS 1, from any thread; lost where there is no connection."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._publish, topic, payload)

    def publish_once(self, topic: str, payload: bytes, *, expires_s: int) -> None:
        """Publish, QoS 1, from any thread; lost where there is no connection."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._publish_once, topic, payload, expires_s)

    def _publish_once(self, topic: str, payload: bytes, expires_s: int) -> None:
        if self._client is None:
            return
        try:
            self._client.publish(topic, payload, qos=1, message_expiry_interval=expires_s)
        except OverflowError:  # every packet number is taken: as if there were no connection
            log.warning("the link is full: a message for %s is sent again later", topic)

    def _publish(self, topic: str, payload: bytes) -> None:
        self._outbox.pop(topic, None)  # only the newest counts, and it is the last that was said
        self._outbox[topic] = payload
        self._has_more.set()

    async def _publish_in_turn(self) -> None:
        """Publish what waits, as the broker acknowledges: it takes some hundred at once."""
        while True:
            await self._has_more.wait()
            self._has_more.clear()
            while self._outbox and self._client is not None:
                topic, payload = next(iter(self._outbox.items()))
                try:
                    self._client.publish(topic, payload, qos=1, retain=True)
                except OverflowError:  # gmqtt: every packet number is taken
                    await asyncio.sleep(_FULL_S)
                else:
                    del self._outbox[topic]
            self._outbox.clear()

    async def send(self, topic: str, payload: bytes) -> None:
        """Publish once, QoS 0; waits while the link is full, dropped where there is none."""
        while (client := self._client) is not None:
            # gmqtt writes without looking whether anybody reads, and has no word for waiting.
            if client._connection._transport.get_write_buffer_size() < _FULL_BYTES:
                client.publish(topic, payload, qos=0)
                return
            await asyncio.sleep(_FULL_S)

    def kept(self, pattern: str, *, until: str, timeout_s: float) -> dict[str, bytes]:
        """What the broker keeps under a pattern, by topic; from any thread but the loop's.

        The broker answers subscriptions in their order: what it keeps for `until` comes last.

        Raises:
            TimeoutError: it did not answer in time, or is not connected.
        """
        if self._loop is None:
            raise TimeoutError
        looking = asyncio.run_coroutine_threadsafe(self._kept(pattern, until), self._loop)
        try:
            return looking.result(timeout_s)
        except concurrent.futures.TimeoutError:
            looking.cancel()
            raise TimeoutError from None

    async def _kept(self, pattern: str, until: str) -> dict[str, bytes]:
        async with self._looking:  # one at a time: an answer does not say whose it is
            return await self._look_at(pattern, until)

    async def _look_at(self, pattern: str, until: str) -> dict[str, bytes]:
        client = self._client
        if client is None:
            raise TimeoutError
        look = _Look(pattern, until, {}, asyncio.get_running_loop().create_future())
        self._look = look
        try:
            for topic in (pattern, until):
                client.subscribe(gmqtt.Subscription(topic, qos=1))
            await look.done
            return look.found
        finally:
            client.unsubscribe([pattern, until])
            self._look = None

    async def run(
        self,
        *,
        take: Callable[[list[Incoming]], None],
        connected: Callable[[], None],
        asked: Callable[[Incoming], None],
    ) -> None:
        """Stay connected until cancelled; see `ports.BrokerLink`."""
        self._loop = asyncio.get_running_loop()
        self._asked = asked
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._take_batches(take))
                tasks.create_task(self._publish_in_turn())
                tasks.create_task(self._stay_connected(connected))
        finally:
            for done in tuple(self._unacknowledged):  # the broker sends them again
                done.cancel()

    async def _stay_connected(self, connected: Callable[[], None]) -> None:
        failures = 0
        while True:
            client = self._new_client()
            try:
                async with asyncio.timeout(_CONNECT_S):
                    await self._connect(client)
            except (OSError, TimeoutError, gmqtt.mqtt.handler.MQTTError) as error:
                await _close(client)
                failures += 1
                delay = min(_MAX_DELAY_S, 0.2 * 2**failures) * random.uniform(0.5, 1.0)
                log.warning("broker does not answer (%s); again in %.1f s", error, delay)
                await asyncio.sleep(delay)
                continue
            self._client = client
            log.info("connected to %s:%d", self._endpoint.host, self._endpoint.port)
            try:
                await self._threads.run(connected)
                failures = 0
                await self._lost.wait()
                log.warning("connection to the broker lost")
            except TransientError as error:  # what the broker is to hold could not be read
                failures += 1
                log.warning("connected, but: %s", error.message)
            finally:
                self._client = None
                await _close(client)
            await asyncio.sleep(min(_MAX_DELAY_S, 0.2 * 2**failures) * random.uniform(0.5, 1.0))

    async def _connect(self, client: Any) -> None:
        await client.connect(
            self._endpoint.host, self._endpoint.port, ssl=self._context(), keepalive=20
        )
        subscriptions = [
            gmqtt.Subscription(
                every_device(self._fleet, channel), qos=0 if channel is Channel.BLOB_GET else 1
            )
            for channel in FROM_DEVICE
        ]
        client.subscribe(subscriptions)

    def _new_client(self) -> Any:
        self._lost = asyncio.Event()
        lost = self._lost
        client = gmqtt.Client(
            self._client_id,
            clean_session=False,
            optimistic_acknowledgement=False,
            session_expiry_interval=_SESSION_S,
            receive_maximum=_WINDOW,
            logger=logging.getLogger("edgefleet.gmqtt"),
        )
        client.set_config({"reconnect_retries": _NO_RECONNECT})
        client.on_message = self._on_message
        client.on_disconnect = lambda *_: lost.set()
        return client

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self._endpoint.cafile))
        context.load_cert_chain(self._endpoint.cert, self._endpoint.key)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    async def _on_message(
        self, _client: Any, topic: str, payload: bytes, _qos: int, properties: dict[str, Any]
    ) -> int:
        if self._look is not None and self._look.takes(topic, bytes(payload)):
            return 0
        message = Incoming(topic, bytes(payload), bool(properties.get("retain")))
        if topic.endswith(_ASKS):
            self._asked(message)
            return 0
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._unacknowledged.add(done)
        done.add_done_callback(self._unacknowledged.discard)
        self._inbox.put_nowait(_Waiting(message, done))
        return await done  # gmqtt acknowledges with what is returned

    async def _take_batches(self, take: Callable[[list[Incoming]], None]) -> None:
        while True:
            batch = [await self._inbox.get()]
            while len(batch) < _WINDOW and not self._inbox.empty():
                batch.append(self._inbox.get_nowait())
            await self._take(take, [waiting.message for waiting in batch])
            for waiting in batch:
                if not waiting.done.done():
                    waiting.done.set_result(0)

    async def _take(self, take: Callable[[list[Incoming]], None], messages: list[Incoming]) -> None:
        failures = 0
        while True:
            try:
                await self._threads.run(take, messages)
            except EdgefleetError as error:
                failures += 1
                delay = min(_MAX_DELAY_S, 0.2 * 2**failures)
                log.warning("%d messages wait: %s", len(messages), error.message)
                await asyncio.sleep(delay)
            else:
                return


def is_under(topic: str, pattern: str) -> bool:
    """Whether a topic matches a pattern with `+` for single levels."""
    parts, wanted = topic.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(
        want in ("+", part) for part, want in zip(parts, wanted, strict=True)
    )


async def _close(client: Any) -> None:
    try:
        async with asyncio.timeout(2):  # not wait_for: before Python 3.12 it loses cancellations
            await client.disconnect()
    except (OSError, TimeoutError, AttributeError) as error:
        log.debug("closing the connection: %s", error)
