"""The shell of the rollout machine: keeps its state, carries out its commands, signs orders.

Every change of a rollout goes through `apply`; every device that a command concerns is looked at
once at the end (`settle`): what should it run now, and does the newest order say so already? Only
then a new order is signed, with the next number; a number is never used twice.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edgefleet_contract.bundle import Digest, is_name
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PublicKey
from edgefleet_contract.messages import Capabilities, Order, Phase, Reported, Target, seal_order
from edgefleet_contract.order_policy import DEFAULT_POLICY, Policy
from edgefleet_contract.reasons import Reason
from edgefleet_fleet import rollout as machine
from edgefleet_fleet import sealings, tuf_repo
from edgefleet_fleet.cohort import check_waves
from edgefleet_fleet.desired import Level, level, outcome_of, runs, without_sealed
from edgefleet_fleet.device_views import hardware_class
from edgefleet_fleet.errors import Conflict, NotFound
from edgefleet_fleet.filters import Traits, parse_filter, resolve
from edgefleet_fleet.gates import GatePolicy
from edgefleet_fleet.library import require_complete
from edgefleet_fleet.publications import Publications
from edgefleet_fleet.records import Device, OrderRow, RolloutRow
from edgefleet_fleet.rollout import State
from edgefleet_fleet.work import Actor, Room, Work

log = logging.getLogger("edgefleet.rollout")

_ALIVE: Final = (State.RUNNING, State.PAUSED)
_SETS_LEVEL: Final = (*_ALIVE, State.COMPLETED)
_DAY_S: Final = 24 * 3600
_RENEW_S: Final = 2 * _DAY_S


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asks for: which bundle, for whom, how carefully."""

    bundle: str
    signature_sha256: str
    slot: str = ""
    to: str = "all"
    canaries: tuple[str, ...] = ()
    waves: tuple[int, ...] = (100,)
    max_failures: int | None = None
    policy: Policy = DEFAULT_POLICY
    allow_downgrade: bool = False
    sealed: bool = False


class Deployments:
    """Rollouts, and the orders that follow from them."""

    def __init__(self, room: Room, publications: Publications) -> None:
        self._room = room
        self._publications = publications
        self._sealings = sealings.Sealings(room)

    def create(self, wish: Wish, *, actor: Actor) -> str:
        """Begin a rollout; its id.

        Raises:
            NotFound: no such bundle, or an unknown canary.
            OperatorError: the bundle is not complete, or the wish contradicts itself.
            Malformed: the filter or the waves are not understood.
        """
        wanted = parse_filter(wish.to)
        check_waves(wish.waves)
        if wish.sealed:  # before the work: it may take a while
            self._sealings.seal(wish.bundle, wish.signature_sha256, actor=actor)
        with self._room.work(actor) as work:
            wanted = resolve(wanted, work.tx.groups.filters())  # frozen: groups may change
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
            slot = wish.slot or bundle.model
            if not is_name(slot):
                raise OperatorError(f"slot {slot[:80]!r}: a slot is named [a-z0-9][a-z0-9._-]*")
            if wish.max_failures is not None and wish.max_failures < 1:
                raise OperatorError("max-failures must be 1 or more")
            devices = [d.id for d in work.tx.devices.list() if wanted.matches(traits_of(d))]
            _check_canaries(wish.canaries, devices, str(wanted))
            if not wish.sealed:
                work.tx.bundles.set_in_clear(bundle.digest)
            number = work.tx.rollouts.next_number()
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
                salt=secrets.token_hex(8),
                waves=wish.waves,
                canaries=wish.canaries,
                max_failures=wish.max_failures,
                policy=wish.policy,
                allow_downgrade=wish.allow_downgrade,
                state=State.RUNNING,
                cause=None,
                wave=0,
                excused=0,
                ended_at=None,
            )
            self._begin(work, row, tuple(devices))
            return row.id

    def pause(self, rollout: str, *, actor: Actor) -> None:
        """Stop asking more devices.

        Raises:
            NotFound: no such rollout.
            Conflict: it cannot be paused now.
        """
        self._by_hand(rollout, machine.Paused(), actor)

    def resume(self, rollout: str, *, actor: Actor) -> None:
        """Go on; the failures so far are acknowledged. Raises as `pause`."""
        self._by_hand(rollout, machine.Resumed(), actor)

    def abort(self, rollout: str, *, actor: Actor) -> None:
        """End it; devices that have the new version keep it. Raises as `pause`."""
        self._by_hand(rollout, machine.Aborted(), actor)

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
                dirty |= self._apply(work, row, machine.Joined(device))
                mine = {known.id: member for known, member in work.tx.rollouts.of_device(device)}
            if row.id in mine and mine[row.id].outcome is not machine.Outcome.PENDING:
                settled.add(slot)
        self._settle(work, dirty | ({device} if again else set()), again=again)

    def part_from(self, work: Work, device: str) -> None:
        """Take a device out of every rollout, so that none waits for it."""
        dirty: set[str] = set()
        for row, _member in work.tx.rollouts.of_device(device):
            dirty |= self._apply(work, row, machine.Taken(device))
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
        outcome = outcome_of(phase, reason)
        dirty: set[str] = set()
        for rollout in order.asks:
            work.tx.rollouts.note_phase(rollout, device, phase, reason, detail, at=work.now)
            work.changed("rollout", rollout)
            row = work.tx.rollouts.get(rollout)
            if outcome is not None and row is not None:
                dirty |= self._apply(work, row, machine.Ended(device, outcome))
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

    def _by_hand(self, rollout: str, event: machine.Event, actor: Actor) -> None:
        with self._room.work(actor) as work:
            row = work.tx.rollouts.get(rollout)
            if row is None:
                raise NotFound(f"there is no rollout {rollout!r}", hint="fleet rollouts list")
            try:
                dirty = self._apply(work, row, event)
            except machine.NotInTable as error:
                raise Conflict(f"rollout {rollout}: {error}") from None
            self._settle(work, dirty)

    def _begin(self, work: Work, row: RolloutRow, devices: tuple[str, ...]) -> None:
        dirty: set[str] = set()
        for other in work.tx.rollouts.in_states(_ALIVE):
            if other.target.slot == row.target.slot and row.to in ("all", other.to):
                dirty |= self._apply(work, other, machine.Replaced())
        work.tx.rollouts.add(row)
        gate = GatePolicy(max_failures=row.max_failures)
        plan = machine.Plan(row.salt, row.waves, frozenset(row.canaries), gate)
        started, commands = machine.begin(plan, devices)
        work.tx.rollouts.keep(row.id, None, started, at=work.now)
        dirty |= self._carry_out(work, row, commands)
        how = ", sealed" if row.target.sealed else ""
        detail = f"{row.target.model}-{row.target.version}{how} to {row.to}: {len(devices)} devices"
        work.record("rollout.begin", row.id, detail)
        work.changed("rollout", row.id)
        self._settle(work, dirty)

    def _apply(self, work: Work, row: RolloutRow, event: machine.Event) -> set[str]:
        """Step a rollout and keep it; the devices that are to be looked at."""
        old = work.tx.rollouts.machine(row)
        new, commands = machine.step(old, event)
        if new == old:
            return set()
        work.tx.rollouts.keep(row.id, old, new, at=work.now)
        if (old.state, old.wave) != (new.state, new.wave):
            cause = f" ({new.cause})" if new.cause else ""
            wave = f"wave {new.wave + 1}{cause}"
            work.record(f"rollout.{new.state}", row.id, wave)
            log.info(
                "rollout %s: %s wave %d -> %s wave %d%s",
                *(row.id, old.state, old.wave + 1, new.state, new.wave + 1, cause),
            )
        work.changed("rollout", row.id)
        return self._carry_out(work, row, commands)

    def _carry_out(
        self, work: Work, row: RolloutRow, commands: Iterable[machine.Command]
    ) -> set[str]:
        dirty: set[str] = set()
        for command in commands:
            dirty.add(command.device)
            if not isinstance(command, machine.Ask):
                continue
            if row.target.sealed is not None and not self._has_seal_key(work, command.device):
                dirty |= self._refuse(work, row.id, command.device)
                continue
            for other, _member in work.tx.rollouts.of_device(command.device):
                if other.number < row.number and other.target.slot == row.target.slot:
                    dirty |= self._apply(work, other, machine.Taken(command.device))
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
        row = work.tx.rollouts.get(rollout)
        assert row is not None
        return self._apply(work, row, machine.Ended(device, good=False))

    def _settle(self, work: Work, dirty: set[str], *, again: bool = False) -> None:
        """Give every device in `dirty` the order that it should have, if it has another."""
        queue = sorted(dirty)
        while queue:
            device = work.tx.devices.get(queue.pop(0))
            if device is None or not device.is_active:
                continue
            more = self._settle_device(work, device, again=again)
            queue += sorted(more - set(queue))

    def _settle_device(self, work: Work, device: Device, *, again: bool) -> set[str]:
        wanted = self._level(work, device)
        newest = work.tx.orders.newest(device.id)
        work.changed("device", device.id)
        if newest is None and not wanted.targets:
            return set()
        if again or newest is None or newest.targets != wanted.targets:
            self._issue(work, device, wanted)
            return set()
        reported = device.reported
        if reported is None or reported.order_seq < newest.seq:  # it has not answered yet
            self._attach(work, newest, wanted.asks)
            return set()
        ended = outcome_of(reported.phase, reported.reason)
        if ended is True or all(runs(reported, target) for target in newest.targets):
            self._attach(work, newest, wanted.asks)
            return self._end(work, device.id, wanted.asks)
        if ended is False and wanted.asks:
            self._issue(work, device, wanted)
        else:
            self._attach(work, newest, wanted.asks)
        return set()

    def _end(self, work: Work, device: str, asks: tuple[str, ...]) -> set[str]:
        dirty: set[str] = set()
        for rollout in asks:
            row = work.tx.rollouts.get(rollout)
            assert row is not None
            work.tx.rollouts.note_phase(
                rollout, device, Phase.COMMITTED, None, "it ran already", at=work.now
            )
            dirty |= self._apply(work, row, machine.Ended(device, good=True))
        return dirty

    def _attach(self, work: Work, order: OrderRow, asks: tuple[str, ...]) -> None:
        new = [rollout for rollout in asks if rollout not in order.asks]
        if new:
            work.tx.orders.set_asks(order.device, order.seq, (*order.asks, *new))
            for rollout in new:
                work.tx.rollouts.note_order(rollout, order.device, order.seq, at=work.now)

    def _level(self, work: Work, device: Device) -> Level:
        running = device.reported.models if device.reported is not None else ()
        history = work.tx.rollouts.asks_of(device.id)
        if not device.seal_key:
            history = without_sealed(history)
        known: dict[Digest, Target] = {ask.target.bundle_sha256: ask.target for ask in history}
        for model in running:
            target = work.tx.bundles.target(model.bundle_sha256, slot=model.slot)
            if target is not None:
                known.setdefault(model.bundle_sha256, sealings.draft_of(work.tx, target))
            elif model.bundle_sha256 not in known:
                log.warning("%s runs a bundle unknown here in slot %s", device.id, model.slot)
        if not device.seal_key:
            known = {digest: target for digest, target in known.items() if target.sealed is None}
        return level(history, running, known)

    def _issue(self, work: Work, device: Device, wanted: Level) -> None:
        seq = max(device.last_seq, device.reported.order_seq if device.reported else 0) + 1
        order = Order(
            fleet=self._room.fleet,
            device=device.id,
            seq=seq,
            issued=work.now,
            expires=work.now + self._room.config.order_days * _DAY_S,
            rollout=wanted.rollout,
            targets=tuple(
                sealings.for_device(work.tx, target, device, fleet=self._room.fleet)
                for target in wanted.targets
            ),
            sources=(f"{self._room.base_url}/blobs",),
            metadata=(f"{self._room.base_url}/tuf",),
            metadata_min=tuf_repo.version_of(self._publications.require(work.tx).timestamp),
            allow_downgrade=wanted.allow_downgrade,
            policy=wanted.policy,
        )
        row = OrderRow(
            device=device.id,
            seq=seq,
            issued=order.issued,
            expires=order.expires,
            rollout=order.rollout,
            asks=wanted.asks,
            targets=order.targets,
            envelope=seal_order(order, self._room.director),
        )
        work.tx.orders.add(row)
        work.tx.devices.set_last_seq(device.id, seq)
        for rollout in wanted.asks:
            work.tx.rollouts.note_order(rollout, device.id, seq, at=work.now)
        work.orders.append(row)
        what = ", ".join(f"{target.slot}={target.model}@{target.version}" for target in row.targets)
        log.info("order %s#%d: %s", device.id, seq, what or "nothing")


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


def _check_canaries(canaries: tuple[str, ...], devices: list[str], to: str) -> None:
    for canary in canaries:
        if re.fullmatch(r"\S+", canary) is None or canary not in devices:
            raise NotFound(f"canary {canary!r} is not a device that {to!r} means")
