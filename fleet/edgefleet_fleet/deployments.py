"""The shell of the rollout machine: keeps its state, and carries out its commands.

Every change of a rollout goes through `_apply`; every device that a command concerns is looked at
once at the end, and has the order that it should have (`orders.py`).
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from edgefleet_contract.bundle import is_name
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.keys import PublicKey
from edgefleet_contract.messages import (
    Capabilities,
    Event,
    ModelTelemetry,
    Phase,
    Reported,
    Target,
)
from edgefleet_contract.order_policy import DEFAULT_POLICY, Policy
from edgefleet_contract.reasons import Reason
from edgefleet_fleet import rollout as machine
from edgefleet_fleet import rollout_events as events
from edgefleet_fleet import sealings
from edgefleet_fleet.desired import runs
from edgefleet_fleet.device_views import hardware_class
from edgefleet_fleet.endings import ON_THE_WAY, SELFTEST, ending_of
from edgefleet_fleet.errors import Conflict, Denied, NotFound
from edgefleet_fleet.filters import Traits, parse_filter, resolve
from edgefleet_fleet.happenings import Happening, HistoryKind
from edgefleet_fleet.library import require_complete
from edgefleet_fleet.model_gates import Evidence
from edgefleet_fleet.model_watch import ModelWatch
from edgefleet_fleet.orders import DAY_S, Orders
from edgefleet_fleet.publications import Publications
from edgefleet_fleet.records import Bundle, Device, MemberRow, RolloutRow
from edgefleet_fleet.rehearsal import Visit, rehearse
from edgefleet_fleet.rollout_plan import Plan
from edgefleet_fleet.rollout_states import Ending, NotInTable, State
from edgefleet_fleet.roster import Outcome, step_of
from edgefleet_fleet.rounds import drive, wake_at
from edgefleet_fleet.work import Actor, Room, Work

log = logging.getLogger("edgefleet.rollout")

_ALIVE: Final = tuple(
    state for state in State if state.is_waiting or state in (State.RUNNING, State.PAUSED)
)
_TICKS: Final = (*_ALIVE, State.COMPLETED, State.ABORTING)
_SETS_LEVEL: Final = tuple(state for state in State if state.sets_level)
_SAID: Final = (
    *(events.Submitted, events.Approved, events.Denied, events.Started),
    *(events.Promoted, events.Paused, events.Resumed, events.Aborted),
)
_NOT_ASKED: Final = (Outcome.PENDING, Outcome.BLOCKED)
_PLAN: Final = Plan("")
_RENEW_S: Final = 2 * DAY_S


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asks for: which bundle, for whom, how carefully.

    `plan` is the whole of how; its salt and author are the control room's. `is_draft` leaves it for
    a person to start.
    """

    bundle: str
    signature_sha256: str
    slot: str = ""
    to: str = "all"
    plan: Plan = _PLAN
    policy: Policy = DEFAULT_POLICY
    allow_downgrade: bool = False
    sealed: bool = False
    is_draft: bool = False


class Deployments:
    """Rollouts, and the orders that follow from them."""

    def __init__(self, room: Room, publications: Publications) -> None:
        self._room = room
        self._publications = publications
        self._sealings = sealings.Sealings(room)
        self._watch = ModelWatch(room, self._learned)
        self._settle = Orders(room, publications, self._ran_already).settle

    def create(self, wish: Wish, *, actor: Actor) -> str:
        """Begin a rollout; its id.

        Raises:
            NotFound: no such bundle, or an unknown canary.
            OperatorError: the bundle is not complete, or the wish contradicts itself.
            Malformed: the filter or the waves are not understood.
        """
        wanted = parse_filter(wish.to)
        if wish.sealed:  # before the work: it may take a while
            self._sealings.seal(wish.bundle, wish.signature_sha256, actor=actor)
        with self._room.work(actor) as work:
            wanted = resolve(wanted, work.tx.groups.filters())  # frozen: groups may change
            bundle = self._usable(work, wish)
            slot = wish.slot or bundle.model
            if not is_name(slot):
                raise OperatorError(f"slot {slot[:80]!r}: a slot is named [a-z0-9][a-z0-9._-]*")
            plan = replace(
                wish.plan,
                salt=secrets.token_hex(8),
                author=actor.who,
                reference=self._watch.usual(work, bundle, wish.plan.reference),
            )
            if plan.expires_at and plan.expires_at <= work.now:
                raise OperatorError("it would expire before it begins")
            devices = [d.id for d in work.tx.devices.list() if wanted.matches(traits_of(d))]
            _check_canaries(plan.canaries, devices, str(wanted))
            if not wish.sealed:
                work.tx.bundles.set_in_clear(bundle.digest)
            if wish.policy.retry_quarantined:
                work.tx.rollouts.unblock(bundle.digest)
            number = work.tx.rollouts.next_number()
            draft = machine.Rollout(plan)
            row = RolloutRow(
                id=f"{bundle.model}-{bundle.version}-r{number}",
                number=number,
                created_at=work.now,
                created_by=actor.who,
                target=Target(
                    slot,
                    bundle.model,
                    bundle.version,
                    bundle.digest,
                    bundle.signature_sha256,
                    bundle.size,
                    sealings.draft(work.tx, bundle.digest) if wish.sealed else None,
                ),
                to=str(wanted),
                policy=wish.policy,
                allow_downgrade=wish.allow_downgrade,
                plan=plan,
                state=draft.state,
                cause=None,
                why="",
                wave=0,
                ended_at=None,
            )
            work.tx.rollouts.add(row, draft)
            how = ", sealed" if row.target.sealed else ""
            detail = f"{bundle.model}-{bundle.version}{how} to {row.to}: {len(devices)} devices"
            work.record("rollout.begin", row.id, detail)
            work.changed("rollout", row.id)
            if not wish.is_draft:
                self._settle(work, self._apply(work, row.id, events.Submitted()))
            return row.id

    def rehearse(self, wish: Wish) -> tuple[Visit, ...]:
        """Who would get it, in which wave, and when at the earliest; nothing is kept or sent.

        Raises as `create`.
        """
        wanted = parse_filter(wish.to)
        with self._room.work() as work:
            wanted = resolve(wanted, work.tx.groups.filters())
            bundle = self._usable(work, wish)
            found = [d for d in work.tx.devices.list() if wanted.matches(traits_of(d))]
            _check_canaries(wish.plan.canaries, [d.id for d in found], str(wanted))
            plan = replace(wish.plan, salt=secrets.token_hex(8))
            blocked = work.tx.rollouts.blocked(bundle.digest)
            if wish.policy.retry_quarantined:
                blocked = ()
            return rehearse(plan, {d.id: _kind(d) for d in found}, blocked, now=work.now)

    def _usable(self, work: Work, wish: Wish) -> Bundle:
        found = work.tx.bundles.get(wish.bundle, wish.signature_sha256)
        bundle = require_complete(found, wish.bundle)
        if not self._publications.lists(work.tx, bundle.model, bundle.version, bundle.digest):
            raise OperatorError(
                f"{bundle.model}-{bundle.version} is not released: no device would take it",
                hint="fleet push-model BUNDLE --key publisher.pem",
            )
        revoked = self._publications.revoked(work.tx)
        forbidden = revoked.forbids(bundle.model, bundle.version, bundle.digest)
        if forbidden:
            raise OperatorError(f"{forbidden}: no device would take it")
        return bundle

    def pause(self, rollout: str, *, actor: Actor) -> None:
        """Stop asking more devices.

        Raises:
            NotFound: no such rollout.
            Conflict: it cannot be paused now.
        """
        self._by_hand(rollout, events.Paused(), actor)

    def resume(self, rollout: str, *, actor: Actor) -> None:
        """Go on; the failures so far are acknowledged. Raises as `pause`."""
        self._by_hand(rollout, events.Resumed(), actor)

    def abort(self, rollout: str, *, ending: Ending = Ending.KEEP, actor: Actor) -> None:
        """End it; devices that have the new version keep it or go back. Raises as `pause`."""
        self._by_hand(rollout, events.Aborted(ending), actor)

    def start(self, rollout: str, *, actor: Actor) -> None:
        """Begin a draft, or one that is scheduled, now. Raises as `pause`."""
        self._by_hand(rollout, events.Started(), actor)

    def approve(self, rollout: str, *, actor: Actor) -> None:
        """Agree with it, as a second person. Raises as `pause`, and Denied for the first."""
        self._by_hand(rollout, events.Approved(actor.who), actor)

    def deny(self, rollout: str, *, actor: Actor) -> None:
        """Say no to it. Raises as `pause`."""
        self._by_hand(rollout, events.Denied(actor.who), actor)

    def promote(self, rollout: str, *, actor: Actor) -> None:
        """Open the wave that waits for a person. Raises as `pause`."""
        self._by_hand(rollout, events.Promoted(), actor)

    def label(self, rollout: str, device: str, *, right: int, wrong: int, actor: Actor) -> None:
        """Take what became known of a device's answers: so many were right, so many wrong.

        Raises:
            NotFound: there is no such rollout, or the device is not part of it.
        """
        with self._room.work(actor) as work:
            member = work.tx.rollouts.roster(rollout, at=work.now).get(device)
            if member is None:
                raise NotFound(f"{device!r} is no device of rollout {rollout!r}")
            more = Evidence(labelled=right + wrong, right=right)
            self._settle(work, self._apply(work, rollout, events.Observed(member.kind, more)))
            work.record("rollout.label", rollout, f"{device}: {right} right, {wrong} wrong")

    def tick(self) -> int:
        """Let time go on for every rollout that waits for it; when to call again, by the clock.

        0: nothing waits.
        """
        with self._room.work() as work:
            dirty: set[str] = set()
            due = 0
            for row in work.tx.rollouts.in_states(_TICKS):
                dirty |= self._apply(work, row.id, events.Tick())
                found = self._machine(work, row.id)
                moment = wake_at(found, work.now) if found is not None else 0
                due = min(due or moment, moment or due)
            self._settle(work, dirty)
            return due

    def observe(self, work: Work, sample: ModelTelemetry) -> None:
        """Take what a device tells of its models as evidence for the rollouts that asked for it."""
        self._watch.observe(work, sample)

    def compare(self, work: Work, event: Event) -> None:
        """Take a shadow's report as such evidence."""
        self._watch.compare(work, event)

    def _learned(self, work: Work, rollout: str, member: MemberRow, more: Evidence) -> None:
        self._settle(work, self._apply(work, rollout, events.Observed(member.kind, more)))

    def welcome(
        self,
        work: Work,
        device: str,
        capabilities: Capabilities | None = None,
        *,
        again: bool = False,
    ) -> None:
        """Let a device that enrolled, or changed, into the rollouts that mean it.

        `again` signs an order in any case.
        """
        found = work.tx.devices.get(device)
        if found is None or not found.is_active:
            return
        traits = traits_of(found, capabilities)
        dirty: set[str] = set()
        settled: set[str] = set()
        mine = {row.id: member for row, member in work.tx.rollouts.of_device(device)}
        for row in reversed(work.tx.rollouts.in_states(_SETS_LEVEL)):
            slot = row.target.slot
            if slot in settled:
                continue
            if row.id not in mine and parse_filter(row.to).matches(traits):
                dirty |= self._apply(
                    work, row.id, events.Joined(device, _kind(found, capabilities))
                )
                mine = {known.id: member for known, member in work.tx.rollouts.of_device(device)}
            if row.id in mine and mine[row.id].outcome not in _NOT_ASKED:
                settled.add(slot)
        self._settle(work, dirty | ({device} if again else set()), again=again)

    def part_from(self, work: Work, device: str) -> None:
        """Take a device out of every rollout, so that none waits for it."""
        dirty: set[str] = set()
        for row, _member in work.tx.rollouts.of_device(device):
            dirty |= self._apply(work, row.id, events.Left(device))
        work.tx.rollouts.drop_device(device)
        work.cleared.append(device)
        self._settle(work, dirty - {device})

    def progress(
        self,
        work: Work,
        device: str,
        *,
        seq: int,
        phase: Phase,
        reason: Reason | None,
        detail: str,
    ) -> None:
        """Take what a device said about an order."""
        order = work.tx.orders.get(device, seq)
        if order is None:
            return
        happened = _event_of(device, phase, reason)
        dirty: set[str] = set()
        for rollout in order.asks:
            if work.tx.rollouts.is_answered(rollout, device, seq):
                continue  # it was put off since, and this is of the try before
            work.tx.rollouts.note_phase(rollout, device, phase, reason, detail, at=work.now)
            work.changed("rollout", rollout)
            if happened is not None:
                dirty |= self._apply(work, rollout, happened)
        self._settle(work, dirty)

    def catch_up(self, work: Work, device: Device, reported: Reported) -> None:
        """Hold the full state of a device against what it was asked.

        A device that follows a higher number than was ever given here (the fleet's data base was
        restored from a backup) gets its level again, above that number.
        """
        if reported.order_seq > device.last_seq:
            log.warning("%s follows order %d, unknown here", device.id, reported.order_seq)
            work.tx.devices.set_last_seq(device.id, reported.order_seq)
            self._settle(work, {device.id}, again=True)
            return
        self._welcome_back(work, device.id, reported)
        order = work.tx.orders.get(device.id, reported.order_seq)
        rests = reported.phase is Phase.IDLE and order is not None
        done = rests and all(runs(reported, target) for target in order.targets) if order else False
        self.progress(
            work,
            device.id,
            seq=reported.order_seq,
            phase=Phase.COMMITTED if done else reported.phase,
            reason=reported.reason,
            detail=reported.detail,
        )

    def _welcome_back(self, work: Work, device: str, reported: Reported) -> None:
        """Note that a device no longer runs what it was told to leave."""
        for row, member in work.tx.rollouts.of_device(device):
            if member.outcome is Outcome.REVERTING and not runs(reported, row.target):
                self._settle(work, self._apply(work, row.id, events.Back(device)))

    def publish_all(self) -> None:
        """Put every device's newest order on the broker, again; those that run out anew."""
        self.renew()
        with self._room.work() as work:
            devices = {device.id for device in work.tx.devices.list()}
            orders = [order for order in work.tx.orders.all_newest() if order.device in devices]
            work.orders.extend(orders)
        log.info("published %d orders", len(orders))

    def prepare_director(self, *, actor: Actor) -> PublicKey:
        """Make the next director key; `follow_policy` takes it up once a publisher lists it."""
        with self._room.work(actor) as work:
            key = self._room.make_next_director()
            work.record("trust.director", key.id, "prepared")
        return key

    def follow_policy(self) -> None:
        """Sign with a director key that the policy lists, and all orders again if it changed."""
        with self._room.work() as work:
            ring = self._publications.policy(work.tx).directors
            if not self._room.take_director(frozenset(ring)):
                return
            work.record("trust.director", self._room.director.public.id, "in use")
            devices = {device.id for device in work.tx.devices.list()}
            orders = [order for order in work.tx.orders.all_newest() if order.device in devices]
            self._settle(work, {order.device for order in orders}, again=True)

    def renew(self) -> None:
        """Sign those orders again that run out soon; the level stays what it is."""
        with self._room.work() as work:
            devices = {device.id for device in work.tx.devices.list()}
            orders = [order for order in work.tx.orders.all_newest() if order.device in devices]
            due = {order.device for order in orders if order.expires - work.now < _RENEW_S}
            self._settle(work, due, again=True)

    def _by_hand(self, rollout: str, event: events.Event, actor: Actor) -> None:
        with self._room.work(actor) as work:
            if work.tx.rollouts.get(rollout) is None:
                raise NotFound(f"there is no rollout {rollout!r}", hint="fleet rollouts list")
            try:
                dirty = self._apply(work, rollout, event)
            except NotInTable as error:
                raise Conflict(f"rollout {rollout}: {error}") from None
            except machine.NotAllowed as error:
                raise Denied(f"rollout {rollout}: {error}") from None
            self._settle(work, dirty)
            work.record(f"rollout.{type(event).__name__.lower()}", rollout, _how(event))

    def _machine(self, work: Work, rollout: str) -> machine.Rollout | None:
        """A machine as it is kept; one that cannot be read is paused, and decides nothing."""
        try:
            return work.tx.rollouts.machine(rollout)
        except Malformed as error:
            row = work.tx.rollouts.get(rollout)
            if row is not None and not row.state.is_over and row.state is not State.PAUSED:
                log.error("rollout %s is paused: %s", rollout, error.message)
                work.tx.rollouts.pause_unread(rollout, error.message)
                work.changed("rollout", rollout)
            return None

    def _apply(self, work: Work, rollout: str, event: events.Event) -> set[str]:
        """Step a rollout and keep it; the devices that are to be looked at."""
        old = self._machine(work, rollout)
        if old is None:
            return set()
        replaced: set[str] = set()
        roster = work.tx.rollouts.roster(rollout, at=work.now)
        new, commands = drive(
            *(old, roster, event),
            now=work.now,
            enlist=lambda: self._enlist(work, rollout, replaced),
        )
        work.tx.rollouts.keep(rollout, old, new, at=work.now)
        before, after = _standing(old), _standing(new)
        if before != after:
            if not isinstance(event, _SAID):  # what a person did is recorded as such
                work.record(f"rollout.{new.state}", rollout, _how_it_stands(new))
            log.info("rollout %s: %s -> %s%s", rollout, before, after, new.why and f": {new.why}")
        if before != after or commands or not isinstance(event, events.Tick):
            work.changed("rollout", rollout)
        return replaced | self._carry_out(work, rollout, commands)

    def _enlist(self, work: Work, rollout: str, replaced: set[str]) -> events.Enlisted:
        """The devices that a rollout means when it begins; what it replaces ends."""
        row = work.tx.rollouts.get(rollout)
        assert row is not None
        for other in work.tx.rollouts.in_states(_ALIVE):
            is_older = other.number < row.number and other.target.slot == row.target.slot
            if is_older and row.to in ("all", other.to):
                replaced |= self._apply(work, other.id, events.Replaced())
        wanted = parse_filter(row.to)
        found = [d for d in work.tx.devices.list() if wanted.matches(traits_of(d))]
        blocked = work.tx.rollouts.blocked(row.target.bundle_sha256)
        return events.Enlisted({device.id: _kind(device) for device in found}, blocked)

    def _carry_out(self, work: Work, rollout: str, commands: Iterable[events.Command]) -> set[str]:
        row = work.tx.rollouts.get(rollout)
        assert row is not None
        dirty: set[str] = set()
        for command in commands:
            match command:
                case events.Withdraw(device):
                    dirty.add(device)
                case events.PutOff(device):
                    dirty.add(device)
                    self._put_off(work, rollout, device)
                case events.Ask(device):
                    dirty |= {device} | self._ask(work, row, device)
                case events.Block(kind):
                    bundle = row.target.bundle_sha256
                    work.tx.rollouts.block(bundle, kind, rollout, at=work.now)
                    work.record("rollout.block", rollout, kind)
                case events.Enlist():
                    pass  # `drive` did
        return dirty

    def _ran_already(self, work: Work, rollout: str, device: str) -> set[str]:
        return self._apply(work, rollout, events.Ended(device, Outcome.GOOD))

    @staticmethod
    def _put_off(work: Work, rollout: str, device: str) -> None:
        found = work.tx.devices.get(device)
        member = work.tx.rollouts.roster(rollout, at=work.now).get(device)
        if found is None or member is None:
            return
        work.tx.rollouts.note_answered(rollout, device, found.last_seq)
        words = f"{rollout}: try {member.tries} to fetch it failed"
        wait = f"asked again in {member.retry_at - work.now} s"
        work.happened(device, HistoryKind.ROLLOUT, Happening("retrying", f"{words}, {wait}"))

    def _ask(self, work: Work, row: RolloutRow, device: str) -> set[str]:
        if row.target.sealed is not None and not self._has_seal_key(work, device):
            return self._refuse(work, row.id, device)
        member = work.tx.rollouts.roster(row.id, at=work.now).get(device)
        if member is not None and member.tries:
            told = Happening("asked again", f"{row.id}: try {member.tries + 1}")
            work.happened(device, HistoryKind.ROLLOUT, told)
        work.tx.rollouts.note_ask(row.id, device)
        dirty: set[str] = set()
        for other, _member in work.tx.rollouts.of_device(device):
            if other.number < row.number and other.target.slot == row.target.slot:
                dirty |= self._apply(work, other.id, events.Taken(device))
        return dirty

    @staticmethod
    def _has_seal_key(work: Work, device: str) -> bool:
        found = work.tx.devices.get(device)
        return found is not None and bool(found.seal_key)

    def _refuse(self, work: Work, rollout: str, device: str) -> set[str]:
        """Answer for a device that nothing can be sealed for: a sealed model is never sent bare."""
        work.tx.rollouts.note_phase(
            rollout,
            device,
            Phase.REJECTED,
            Reason.UNSEALING_FAILED,
            sealings.NO_KEY,
            at=work.now,
        )
        return self._apply(work, rollout, events.Ended(device, Outcome.BAD))


def traits_of(device: Device, capabilities: Capabilities | None = None) -> Traits:
    """What filters can ask of a device."""
    reported = device.reported
    able = capabilities or (reported.capabilities if reported is not None else None)
    models = reported.models if reported is not None else ()
    names = {model.model for model in models} | {f"{m.model}@{m.version}" for m in models}
    return Traits(
        id=device.id,
        hw=device.hw,
        arch=device.arch,
        board=device.board,
        hardware_class=(able.hardware_class if able else "") or hardware_class(device),
        cpu=able.cpu if able else "",
        features=frozenset(able.features if able else ()),
        os=able.os if able else "",
        kernel=able.kernel if able else "",
        python=able.python if able else "",
        agent=device.agent,
        phase=reported.phase.value if reported else "",
        engines=frozenset(able.engines) if able is not None else frozenset(),
        accelerators=frozenset(able.accelerators if able else ()),
        models=frozenset(names),
        online=device.online,
        cpus=able.cpus if able else 0,
        memory_mib=able.memory_bytes // 2**20 if able else 0,
        disk_mib=able.disk_bytes // 2**20 if able else 0,
        engine_versions=able.engines if able else {},
        model_versions={model.slot: str(model.version) for model in models},
        tags=device.tags,
    )


def _kind(device: Device, capabilities: Capabilities | None = None) -> str:
    return traits_of(device, capabilities).hardware_class


def _event_of(device: str, phase: Phase, reason: Reason | None) -> events.Event | None:
    """What a phase that a device reports is to a rollout that asked it."""
    ending = ending_of(phase, reason)
    if ending is not None:
        return events.Ended(
            *(device, ending),
            failed_selftest=reason in SELFTEST,
            may_retry=reason in ON_THE_WAY,
        )
    at_it = step_of(phase)
    return events.Answered(device, at_it) if at_it is not None else None


def _how(event: events.Event) -> str:
    return event.ending.value if isinstance(event, events.Aborted) else ""


def _how_it_stands(found: machine.Rollout) -> str:
    cause = f" ({found.cause})" if found.cause else ""
    why = f": {found.why}" if found.why else ""
    return f"wave {found.wave + 1} {found.wave_state}{cause}{why}"


def _standing(found: machine.Rollout) -> str:
    cause = f" ({found.cause})" if found.cause else ""
    return f"{found.state}{cause} wave {found.wave + 1} {found.wave_state}"


def _check_canaries(canaries: tuple[str, ...], devices: list[str], to: str) -> None:
    for canary in canaries:
        if re.fullmatch(r"\S+", canary) is None or canary not in devices:
            raise NotFound(f"canary {canary!r} is not a device that {to!r} means")
