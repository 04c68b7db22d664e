"""Takes what devices say: parses, stores once, and lets the rollouts know.

A message that is not ours (another fleet, a device that never enrolled, a payload that names
another device, not JSON) is dropped, counted by kind and logged; it never stops the ones behind
it. A batch is one transaction.
"""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial

from edgefleet_contract.commands import CommandResult
from edgefleet_contract.enrolment import CertificateRequest
from edgefleet_contract.errors import Malformed
from edgefleet_contract.messages import parse
from edgefleet_contract.reported import Event, Presence, Reported
from edgefleet_contract.telemetry import ModelTelemetry, SourceTelemetry, SystemTelemetry
from edgefleet_contract.topics import Address, Channel, match
from edgefleet_fleet.certificates import Certificates
from edgefleet_fleet.commands import Commands
from edgefleet_fleet.deployments import Deployments
from edgefleet_fleet.errors import Denied
from edgefleet_fleet.happenings import MAX_DETAIL, Happening, HistoryKind, changes, quarantined
from edgefleet_fleet.ports import Incoming
from edgefleet_fleet.records import Device
from edgefleet_fleet.work import KEPT_BY_BROKER, Room, Work

log = logging.getLogger("edgefleet.ingest")


class Ingest:
    """The way from a topic to the store."""

    def __init__(self, room: Room, deployments: Deployments, commands: Commands) -> None:
        self._room = room
        self._deployments = deployments
        self._commands = commands
        self._certificates = Certificates(room)
        self.taken: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def take(self, messages: list[Incoming]) -> None:
        """Take a batch, all of it or (when this raises) nothing.

        Raises:
            TransientError: the data base does not answer; the same batch may be tried again.
        """
        taken: Counter[str] = Counter()
        dropped: Counter[str] = Counter()
        with self._room.work() as work:
            for message in messages:
                if not message.payload:
                    continue  # somebody cleared a retained topic
                try:
                    address = match(message.topic)
                    self._take(work, address, message)
                except _Unknown as error:
                    dropped["unknown_device"] += 1
                    log.warning("dropped: %s", error)
                    self._clear(work, address, message.topic)
                except Malformed as error:
                    dropped["malformed"] += 1
                    log.warning("dropped: %s", error.message)
                else:
                    taken[address.channel.value] += 1
        self.taken.update(taken)
        self.dropped.update(dropped)

    def _take(  # noqa: C901 - one case for each channel
        self, work: Work, address: Address, message: Incoming
    ) -> None:
        name, payload = address.device, message.payload
        if address.fleet != self._room.fleet:
            raise Malformed(f"a message of fleet {address.fleet!r}")
        device = work.tx.devices.get(name)
        if device is None or not device.is_active:
            raise _Unknown(f"a message of {name!r}, which is not enrolled or no longer")
        match address.channel:
            case Channel.REPORTED:
                reported = parse(Reported, payload, device=name)
                note_reported(work, device, reported)
                work.tx.devices.set_reported(reported)
                # What the broker had kept for us is the state, but no sign of life.
                if not message.retained:
                    work.tx.devices.touch(name, at=work.now)
                self._deployments.catch_up(work, device, reported)
                self._deployments.welcome(work, name, reported.capabilities)
            case Channel.ONLINE:
                presence = parse(Presence, payload, device=name)
                note_presence(work, device, presence)
                work.tx.devices.set_presence(presence)
                if presence.online and not message.retained:
                    work.tx.devices.touch(name, at=work.now)
                    self._commands.send_again(work, name)
            case Channel.EVENT:
                self._take_event(work, parse(Event, payload, device=name))
            case Channel.TELEMETRY_SYSTEM:
                sample = parse(SystemTelemetry, payload, device=name)
                work.tx.history.add_telemetry(sample, keep=self._room.config.telemetry_keep)
                work.tx.devices.touch(name, at=work.now)
            case Channel.TELEMETRY_MODEL:
                model = parse(ModelTelemetry, payload, device=name)
                work.tx.history.add_telemetry(model, keep=self._room.config.telemetry_keep)
                work.tx.devices.touch(name, at=work.now)
                self._deployments.observe(work, model)
            case Channel.TELEMETRY_SOURCE:  # for whoever reads the broker; a sign of life to us
                parse(SourceTelemetry, payload, device=name)
                work.tx.devices.touch(name, at=work.now)
            case Channel.RESPONSE:
                self._commands.answered(work, parse(CommandResult, payload, device=name))
                work.tx.devices.touch(name, at=work.now)
            case Channel.ENROL_REQUEST:
                self._renew(work, device, parse(CertificateRequest, payload, device=name))
            case channel:
                raise Malformed(f"{channel} is not what a device tells the store")
        work.changed("device", name)

    def _clear(self, work: Work, address: Address, topic: str) -> None:
        """What a device that left the fleet left on the broker goes from there: its last will comes
        when the device is gone."""
        known = work.tx.devices.get(address.device)
        is_gone = known is not None and known.is_forgotten
        if is_gone and address.channel in KEPT_BY_BROKER and self._room.link is not None:
            work.after.append(partial(self._room.link.publish, topic, b""))

    def _renew(self, work: Work, device: Device, request: CertificateRequest) -> None:
        try:
            self._certificates.renew(work, device, request)
        except Denied as error:
            raise Malformed(error.message) from None

    def _take_event(self, work: Work, event: Event) -> None:
        if not work.tx.history.add_event(event, at=work.now, keep=self._room.config.events_keep):
            return  # the broker delivered it twice
        work.tx.devices.touch(event.device, at=work.now)
        self._deployments.compare(work, event)
        self._deployments.progress(
            work,
            event.device,
            seq=event.order_seq,
            phase=event.phase,
            reason=event.reason,
            detail=event.detail,
        )


def note_presence(work: Work, device: Device, presence: Presence) -> None:
    """Note in its history that a device came, went, or began anew."""
    is_anew = presence.online and device.online and presence.boot_id != device.boot_id
    if presence.online != device.online or is_anew:
        word = "restarted" if is_anew else "online" if presence.online else "offline"
        work.happened(device.id, HistoryKind.LINK, Happening(word))


def note_reported(work: Work, device: Device, reported: Reported) -> None:
    """Note in its history what is otherwise with a device than it said before."""
    before = device.reported
    if before is None:
        return
    changed = changes(before.capabilities, reported.capabilities)
    if before.agent != reported.agent:
        agent = f"agent {before.agent} -> {reported.agent}"
        changed = f"{agent}, {changed}"[:MAX_DETAIL] if changed else agent
    if changed:
        work.happened(device.id, HistoryKind.INVENTORY, Happening("changed", changed))
    if before.quarantined == reported.quarantined:
        return
    named: dict[str, str] = {}
    for digest in {*before.quarantined, *reported.quarantined}:
        bundle = work.tx.bundles.get(digest)
        named[digest] = f"{bundle.model}-{bundle.version}" if bundle is not None else ""
    for told in quarantined(before.quarantined, reported.quarantined, named):
        work.happened(device.id, HistoryKind.QUARANTINE, told)


class _Unknown(Exception):
    """A message of a device that is not one of the fleet."""
