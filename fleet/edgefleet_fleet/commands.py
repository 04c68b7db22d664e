"""Commands to devices: signed, sent, and what comes back. [wire-12]

A command is in the store before it is sent, so one that a broken connection lost is sent again
when the broker, or the device, is back, until it ends. The first answer counts.
"""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import dataclass
from functools import partial
from typing import Final

from edgefleet_contract.commands import (
    MAX_COMMAND_LIFE_S,
    Command,
    CommandResult,
    Kind,
    seal_command,
)
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.topics import Channel, topic
from edgefleet_fleet.certificates import Certificates
from edgefleet_fleet.errors import Conflict
from edgefleet_fleet.groups import devices_of, meant
from edgefleet_fleet.happenings import MAX_DETAIL, Happening, HistoryKind
from edgefleet_fleet.records import CommandRow, Device
from edgefleet_fleet.work import Actor, Room, Work

log = logging.getLogger("edgefleet.commands")

MAX_OPEN: Final = 16
"""Commands that one device may have to answer."""
MAX_DEVICES: Final = 1000


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be done, by which devices, and for how long it may still be begun, s."""

    kind: Kind
    device: str = ""
    to: str = ""
    slot: str = ""
    lines: int = 0
    body: str = ""
    seconds: int = 60


class Commands:
    """What devices are asked to do once."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._certificates = Certificates(room)

    def give(self, wish: Wish, *, actor: Actor) -> tuple[CommandRow, ...]:
        """Ask a device, or all that a filter means; what was asked, with one `request`.

        Raises:
            NotFound: there is no such device.
            Malformed: the filter, the slot or the input is not understood.
            OperatorError: nobody or too many are meant.
            Conflict: a device has too much to answer already.
        """
        if bool(wish.device) == bool(wish.to):
            raise OperatorError("a command is for a device, or for those that a filter means")
        if not 1 <= wish.seconds <= MAX_COMMAND_LIFE_S:
            raise OperatorError(f"a command lives 1 to {MAX_COMMAND_LIFE_S} seconds")
        if wish.kind is Kind.PREDICT:
            _check_input(wish.body)
        request = uuid.uuid4().hex
        with self._room.work(actor) as work:
            return tuple(
                self._give(work, wish, device, request=request)
                for device in self._devices(work, wish)
            )

    def _devices(self, work: Work, wish: Wish) -> tuple[Device, ...]:
        if wish.device:
            return (self._certificates.require_active(work, wish.device),)
        found = devices_of(work.tx, meant(work.tx, wish.to))
        if not found:
            raise OperatorError(f"no device is meant by {wish.to!r}", hint="fleet groups preview")
        if len(found) > MAX_DEVICES:
            raise OperatorError(
                f"{len(found)} devices are meant, at most {MAX_DEVICES} are asked at once"
            )
        return found

    def _give(self, work: Work, wish: Wish, device: Device, *, request: str) -> CommandRow:
        if len(work.tx.commands.open(at=work.now, device=device.id)) >= MAX_OPEN:
            raise Conflict(f"{device.id} has {MAX_OPEN} commands to answer already", hint="wait")
        # At least the second in which it is given: above all that went before, also where the data
        # base is an older one that was brought back.
        seq = max(device.last_command + 1, work.now)
        command = Command(
            fleet=self._room.fleet,
            device=device.id,
            id=uuid.uuid4().hex,
            seq=seq,
            issued=work.now,
            expires=work.now + wish.seconds,
            kind=wish.kind,
            slot=wish.slot,
            lines=wish.lines if wish.kind is Kind.LOGS else 0,
            body=wish.body if wish.kind is Kind.PREDICT else "",
        )
        row = CommandRow(
            id=command.id,
            request=request,
            device=device.id,
            seq=seq,
            kind=command.kind,
            slot=command.slot,
            issued=command.issued,
            expires=command.expires,
            created_by=work.actor.who,
            envelope=seal_command(command, self._room.director),
        )
        work.tx.commands.add(row, keep=max(self._room.config.commands_keep, MAX_OPEN))
        work.tx.devices.set_last_command(device.id, seq)
        work.record(f"command.{command.kind}", device.id, f"{command.id} {command.slot}".strip())
        work.changed("command", command.id)
        work.after.append(partial(self._send, row, work.now))
        return row

    def answered(self, work: Work, result: CommandResult) -> None:
        """Take what a device answered; a second answer, or one to no question, is dropped."""
        if not work.tx.commands.answer(result, at=work.now):
            log.info("%s answers %s, which waits for no answer", result.device, result.id)
            return
        log.info("%s: %s %s: %s", result.device, result.kind, result.outcome, result.detail)
        words = " ".join(word for word in (result.kind.value, result.id, result.detail) if word)
        told = Happening(result.outcome.value, words[:MAX_DETAIL])
        work.happened(result.device, HistoryKind.COMMAND, told)
        work.changed("command", result.id)

    def send_again(self, work: Work, device: str) -> None:
        """Ask a device that came back what it did not answer yet."""
        for row in work.tx.commands.open(at=work.now, device=device):
            work.after.append(partial(self._send, row, work.now))

    def publish_open(self) -> None:
        """Ask everybody what they did not answer yet: the broker is back."""
        with self._room.work() as work:
            for row in work.tx.commands.open(at=work.now):
                work.after.append(partial(self._send, row, work.now))

    def _send(self, row: CommandRow, now: int) -> None:
        if self._room.link is not None:
            where = topic(self._room.fleet, row.device, Channel.COMMAND)
            life_s = max(1, row.expires - now)
            self._room.link.publish_once(where, row.envelope, expires_s=life_s)


def _check_input(body: str) -> None:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise Malformed(f"the input is not JSON: {error}") from None
    if not isinstance(value, dict) or "inputs" not in value:
        raise Malformed(
            "the input is no inference request", hint='{"inputs": [{"name": …, "data": …}]}'
        )
