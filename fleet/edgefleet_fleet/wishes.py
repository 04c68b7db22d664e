"""What a person asks for, and the rollout that it becomes: or a dry run of it."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, replace
from typing import Final

from edgefleet_contract.bundle import is_name
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.order_policy import DEFAULT_POLICY, Policy
from edgefleet_contract.orders import Target
from edgefleet_fleet import rollout as machine
from edgefleet_fleet import rollout_events as events
from edgefleet_fleet import sealings
from edgefleet_fleet.device_traits import kind_of, traits_of
from edgefleet_fleet.errors import NotFound
from edgefleet_fleet.filter_parser import parse_filter
from edgefleet_fleet.filters import resolve
from edgefleet_fleet.library import require_complete
from edgefleet_fleet.model_watch import ModelWatch
from edgefleet_fleet.publications import Publications
from edgefleet_fleet.records import Bundle, RolloutRow
from edgefleet_fleet.rehearsal import Visit, rehearse
from edgefleet_fleet.rollout_plan import Plan
from edgefleet_fleet.rollout_steps import Steps
from edgefleet_fleet.work import Actor, Room, Work

_PLAN: Final = Plan("")


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


class Wishes:
    """Begins rollouts, and rehearses them."""

    def __init__(
        self, room: Room, publications: Publications, steps: Steps, watch: ModelWatch
    ) -> None:
        self._room = room
        self._publications = publications
        self._sealings = sealings.Sealings(room)
        self._steps = steps
        self._watch = watch

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
                self._steps.take(work, row.id, events.Submitted())
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
            return rehearse(plan, {d.id: kind_of(d) for d in found}, blocked, now=work.now)

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


def _check_canaries(canaries: tuple[str, ...], devices: list[str], to: str) -> None:
    for canary in canaries:
        if re.fullmatch(r"\S+", canary) is None or canary not in devices:
            raise NotFound(f"canary {canary!r} is not a device that {to!r} means")
