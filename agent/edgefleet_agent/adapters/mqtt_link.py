"""The device's one outbound connection: MQTT 5 with mutual TLS, by paho-mqtt.

Presence is the retained `online` topic, cleared by the last will. `desired` is retained by the
broker, so whatever was ordered while the device was away arrives on connecting. Reconnects by
itself for ever, with back-off; a broker that is down at start is no error.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edgefleet_agent.config import MqttConfig
from edgefleet_agent.identity import Identity
from edgefleet_agent.sources.requests import Request, Response
from edgefleet_contract import __version__, messages
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.reported import Presence
from edgefleet_contract.topics import (
    TO_DEVICE,
    Channel,
    asked_slot,
    requests_filter,
    results_topic,
    topic,
    trust_topic,
)

log = logging.getLogger(__name__)

SESSION_S: Final = 7 * 24 * 3600
RECONNECT_S: Final = (1, 60)
MAX_QUEUED: Final = 10_000
LARGEST_PACKET: Final = 268_435_455
"""What MQTT allows, where a broker names no limit of its own."""
_EXPIRED: Final = "alert certificate expired"  # RFC 8446, section 6.2, as OpenSSL words it


class MqttLink:
    """The link of one device. Callbacks run in paho's thread; they must hand over and return.

    Args:
        identity: who we are, and the broker.
        config: keep-alive and will delay.
        boot_id: names this run of the agent.
        on_order: gets the bytes of each `desired` message that is not empty.
        on_trust: gets the name and bytes of each document below `-/trust/`.
        on_certificate: gets the bytes of each answer to a request for a certificate.
        on_block: gets each message of `blob/data`.
        on_connected: called after each connection is made, for the full state to be sent.
        on_expired: called when the broker says that our certificate has ended.
        on_request: gets each request for a prediction; without it none is heard.
        on_command: gets the bytes of each command; without it none is heard.
    """

    def __init__(
        self,
        identity: Identity,
        config: MqttConfig,
        *,
        boot_id: str,
        on_order: Callable[[bytes], None],
        on_trust: Callable[[str, bytes], None],
        on_connected: Callable[[], None],
        on_certificate: Callable[[bytes], None],
        on_block: Callable[[bytes], None],
        on_expired: Callable[[], None],
        on_request: Callable[[Request], None] | None = None,
        on_command: Callable[[bytes], None] | None = None,
    ) -> None:
        self._on_command = on_command
        self._identity, self._config, self._boot_id = identity, config, boot_id
        self._on_order, self._on_trust, self._on_connected = on_order, on_trust, on_connected
        self._on_certificate, self._on_block = on_certificate, on_block
        self._on_expired, self._on_request = on_expired, on_request
        self._largest_packet = LARGEST_PACKET
        enrolment = identity.enrolment
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=enrolment.device,
            protocol=mqtt.MQTTv5,
        )
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            self._context.load_verify_locations(str(identity.authority))
            self._context.load_cert_chain(str(identity.certificate), str(identity.key))
        except (OSError, ssl.SSLError) as error:
            raise OperatorError(f"the device's certificate cannot be used: {error}") from None
        self._client.tls_set_context(self._context)
        self._client.max_queued_messages_set(MAX_QUEUED)
        self._client.reconnect_delay_set(*RECONNECT_S)
        will = _properties(PacketTypes.WILLMESSAGE)
        will.WillDelayInterval = config.will_delay_s
        self._client.will_set(
            self._topic(Channel.ONLINE),
            self._presence(online=False),
            qos=1,
            retain=True,
            properties=will,
        )
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_connect_fail = lambda *_: self._trial_failed()
        self._trial: Callable[[bool], None] | None = None
        self._changing = threading.Lock()  # a certificate is tried in a thread, and so is the end
        self._is_over = False
        self._client.on_message = self._message
        self._client.on_log = self._said
        self._client.on_socket_open = self._opened

    def start(self) -> None:
        """Connect in the background, now and whenever the link is lost."""
        session = _properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = SESSION_S
        enrolment = self._identity.enrolment
        self._client.connect_async(
            enrolment.mqtt_host,
            enrolment.mqtt_port,
            keepalive=self._config.keepalive_s,
            clean_start=False,
            properties=session,
        )
        self._client.loop_start()

    def stop(self, *, timeout_s: float = 3.0) -> None:
        """Say goodbye and disconnect; what is queued gets a moment to leave."""
        if self._client.is_connected():
            farewell = self.publish(Channel.ONLINE, self._presence(online=False), retain=True)
            try:
                farewell.wait_for_publish(timeout_s)
            except (RuntimeError, ValueError):
                log.info("the broker did not hear the goodbye")
        with self._changing:
            self._is_over = True
            self._client.disconnect()
            self._client.loop_stop()
            self._client._reset_sockets()  # paho would leave that to the garbage collector

    def try_certificate(self, certificate: Path, *, tried: Callable[[bool], None]) -> None:
        """Connect anew with another certificate for the same key; blocks for a moment.

        What is queued stays queued, and the broker keeps the session. `tried` is told, from paho's
        thread, whether the broker took it; when it did not, the old one is used again.
        """
        with self._changing:
            if self._is_over:  # the next run tries it
                return
            self._client.disconnect()
            self._client.loop_stop()
            self._context.load_cert_chain(str(certificate), str(self._identity.key))
            self._trial = tried
            self.start()

    def use_certificate(self) -> None:
        """Connect anew with the certificate that the identity's file holds; blocks for a moment."""
        self.try_certificate(self._identity.certificate, tried=lambda _: None)

    def _said(self, _client: mqtt.Client, _userdata: Any, _level: int, text: str) -> None:
        """A line of paho's log: the one place where it says with which alert TLS ended."""
        if _EXPIRED in text.lower():
            self._on_expired()

    def _trial_failed(self) -> None:
        tried, self._trial = self._trial, None
        if tried is not None:
            log.warning("no connection with the new certificate; back to the old one")
            self._context.load_cert_chain(str(self._identity.certificate), str(self._identity.key))
            tried(False)

    @property
    def is_connected(self) -> bool:
        """Whether the broker is reached now."""
        return self._client.is_connected()

    @property
    def largest_packet(self) -> int:
        """The most bytes that the broker takes in a packet."""
        return self._largest_packet

    def publish(
        self, channel: Channel, payload: bytes, *, retain: bool = False, qos: int = 1
    ) -> mqtt.MQTTMessageInfo:
        """Send on one of this device's channels; QoS 1 is kept in memory while the link is down."""
        return self._client.publish(self._topic(channel), payload, qos=qos, retain=retain)

    def publish_result(self, source: str, payload: bytes, *, retain: bool) -> Receipt:
        """Send what a source found, QoS 1; kept in memory while the link is down."""
        enrolment = self._identity.enrolment
        where = results_topic(enrolment.fleet, enrolment.device, source)
        return Receipt(self._client.publish(where, payload, qos=1, retain=retain))

    def answer_command(self, payload: bytes) -> Receipt:
        """Send the answer to a command, QoS 1; kept in memory while the link is down."""
        return Receipt(self.publish(Channel.RESPONSE, payload))

    def respond(self, response: Response) -> None:
        """Send the answer to a request, QoS 0; lost while the link is down. [wire-10.6]"""
        told = _properties(PacketTypes.PUBLISH)
        told.UserProperty = list(response.properties.items())
        told.ContentType = response.content_type
        if response.correlation is not None:
            told.CorrelationData = response.correlation
        self._client.publish(response.topic, response.body, qos=0, properties=told)

    def _topic(self, channel: Channel) -> str:
        return topic(self._identity.enrolment.fleet, self._identity.enrolment.device, channel)

    def _trust_topic(self, document: str) -> str:
        return trust_topic(self._identity.enrolment.fleet, document)

    def _presence(self, *, online: bool) -> bytes:
        device = self._identity.enrolment.device
        now = int(time.time())
        return messages.render(Presence(device, self._boot_id, online, __version__, now))

    def _opened(self, _client: mqtt.Client, _userdata: Any, sock: Any) -> None:
        # A link that dies in silence is found out by what nobody acknowledges; paho alone needs
        # two keep-alives for that.
        timeout_ms = self._config.keepalive_s * 1000
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)

    def _connected(
        self, client: mqtt.Client, _userdata: Any, _flags: Any, code: ReasonCode, granted: Any
    ) -> None:
        if code.is_failure:
            log.warning("the broker refused the connection: %s", code)
            self._trial_failed()
            return
        log.info("connected to the broker")
        tried, self._trial = self._trial, None
        if tried is not None:
            tried(True)
        self._largest_packet = getattr(granted, "MaximumPacketSize", LARGEST_PACKET)
        mine = [
            (self._topic(channel), int(channel is not Channel.BLOB_DATA)) for channel in TO_DEVICE
        ]
        client.subscribe([*mine, (self._trust_topic("#"), 1)])
        enrolment = self._identity.enrolment
        asked = requests_filter(enrolment.fleet, enrolment.device)
        if self._on_request is None:
            client.unsubscribe(asked)  # the broker remembers what an earlier run subscribed to
        else:
            fresh = SubscribeOptions(qos=0, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
            client.subscribe(asked, options=fresh)
        self.publish(Channel.ONLINE, self._presence(online=True), retain=True)
        self._on_connected()

    def _disconnected(
        self, _client: mqtt.Client, _userdata: Any, _flags: Any, code: ReasonCode, _properties: Any
    ) -> None:
        log.info("disconnected from the broker: %s", code)
        self._trial_failed()

    def _message(self, _client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic == self._topic(Channel.BLOB_DATA):
            self._on_block(bytes(message.payload))
        elif message.topic == self._topic(Channel.DESIRED) and message.payload:
            self._on_order(bytes(message.payload))
        elif message.topic == self._topic(Channel.ENROL_RESPONSE) and message.payload:
            self._on_certificate(bytes(message.payload))
        elif message.topic == self._topic(Channel.COMMAND):
            if self._on_command is not None and message.payload:
                self._on_command(bytes(message.payload))
        elif message.topic.startswith(self._trust_topic("")) and message.payload:
            name = message.topic.removeprefix(self._trust_topic(""))
            self._on_trust(_document(name), bytes(message.payload))
        elif self._on_request is not None and not message.retain:
            enrolment = self._identity.enrolment
            slot = asked_slot(enrolment.fleet, enrolment.device, message.topic)
            if slot is not None:
                self._on_request(_request(slot, message))


class Receipt:
    """Whether the broker has a message that it was sent."""

    def __init__(self, info: mqtt.MQTTMessageInfo) -> None:
        if info.rc == mqtt.MQTT_ERR_NO_CONN:  # it waits for the next connection, so it is no error
            info.rc = mqtt.MQTT_ERR_SUCCESS
        self._info = info

    def is_published(self) -> bool:
        """Whether it has, or was never sent because the client has no room for it."""
        try:
            return self._info.is_published()
        except (RuntimeError, ValueError):
            return True


def _request(slot: str, message: mqtt.MQTTMessage) -> Request:
    told = message.properties
    named = getattr(told, "UserProperty", [])
    return Request(
        slot=slot,
        body=bytes(message.payload),
        response_topic=getattr(told, "ResponseTopic", ""),
        correlation=getattr(told, "CorrelationData", None),
        properties={str(name).lower(): str(value) for name, value in named},
    )


def _properties(kind: int) -> Properties:
    return Properties(kind)  # type: ignore[no-untyped-call] # paho leaves this one untyped


def _document(topic_end: str) -> str:
    """The name of the TUF document that a topic below `-/trust/` carries."""
    kind, _, rest = topic_end.partition("/")
    if kind == "time":
        return "time"
    if kind == "root":
        return f"{rest}.root.json"
    return f"targets/policy/{rest}.json" if kind == "policy" else f"{kind}.json"
