"""What the API and the pages show of rollouts, as plain JSON values. Reads only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

from edgefleet_contract import codec
from edgefleet_contract.orders import Target
from edgefleet_contract.reasons import Reason, explain
from edgefleet_fleet.adapters.sql.store import Transaction
from edgefleet_fleet.cohort import wave_words
from edgefleet_fleet.errors import NotFound
from edgefleet_fleet.records import MemberRow, RolloutRow
from edgefleet_fleet.rehearsal import Visit
from edgefleet_fleet.rollout_states import State
from edgefleet_fleet.roster import AT_IT, UNDONE, Outcome
from edgefleet_fleet.waiting import gate_views, waits_for

View: TypeAlias = dict[str, Any]
_FAILED = (Outcome.BAD, Outcome.SILENT, *UNDONE)


def rollouts(tx: Transaction, rows: Sequence[RolloutRow] | None = None) -> list[View]:
    """The newest rollouts, newest first, or these; without their devices."""
    known = tx.rollouts.list() if rows is None else rows
    return [_rollout(tx, row) for row in known]


def rollouts_after(tx: Transaction, number: int, *, limit: int) -> list[tuple[int, View]]:
    """The rollouts behind a number, oldest first, without their devices; each with its number."""
    rows = tx.rollouts.after(number, limit=limit)
    return [(row.number, _rollout(tx, row)) for row in rows]


def going_on(tx: Transaction, *, now: int) -> list[View]:
    """The rollouts that are not over, newest first, with what they wait for; else the last one."""
    rows = tx.rollouts.in_states([state for state in State if not state.is_over])
    rows = rows or tx.rollouts.list(limit=1)
    return [_rollout(tx, row) | {"waits_for": _waits(tx, row, now)} for row in reversed(rows)]


def rollout(
    tx: Transaction, rollout_id: str, *, now: int, part: Sequence[MemberRow] | None = None
) -> View:
    """One rollout with its devices, or a part of them, what it waits for, and what its gates read.

    Raises:
        NotFound: there is no such rollout.
    """
    row = tx.rollouts.get(rollout_id)
    if row is None:
        raise NotFound(f"there is no rollout {rollout_id!r}", hint="fleet rollouts list")
    members = tx.members.all(row.id) if part is None else part
    online = tx.devices.online([found.device for found in part] if part is not None else None)
    view = _rollout(tx, row)
    view["devices"] = [member(found) | {"online": found.device in online} for found in members]
    machine = tx.rollouts.machine(row.id) if row.plan is not None else None
    view["waits_for"] = _waits(tx, row, now)
    view["gates"] = [asdict(gate) for gate in gate_views(machine)] if machine is not None else []
    return view


def visits(found: tuple[Visit, ...]) -> list[View]:
    """A dry run, in the order in which devices would be asked."""
    return [
        {"device": visit.device, "kind": visit.kind, "wave": visit.wave, "at": visit.at}
        for visit in found
    ]


def member(found: MemberRow) -> View:
    """A device of a rollout: how it stands there."""
    return {
        "device": found.device,
        "wave": found.wave,
        "kind": found.kind,
        "outcome": "asked" if found.outcome in AT_IT else found.outcome.value,
        "order_seq": found.order_seq,
        "phase": found.phase.value if found.phase else None,
        "detail": found.detail,
        "updated_at": found.updated_at,
        "tries": found.tries,
        "retry_at": found.retry_at,
        **reason(found.reason),
    }


def target(found: Target) -> View:
    """A bundle that is to run in a slot."""
    return {
        "slot": found.slot,
        "model": found.model,
        "version": found.version,
        "bundle_sha256": found.bundle_sha256,
        "sealed": found.sealed is not None,
    }


def reason(found: Reason | None) -> View:
    """Why not: the word, and its sentence."""
    return {
        "reason": found.value if found else None,
        "reason_text": explain(found) if found else "",
    }


def _waits(tx: Transaction, row: RolloutRow, now: int) -> list[str]:
    return list(waits_for(tx.rollouts.machine(row.id), now=now)) if row.plan is not None else []


def _rollout(tx: Transaction, row: RolloutRow) -> View:
    outcomes: Counter[Outcome] = Counter()
    reasons: Counter[str] = Counter()
    for outcome, why, count in tx.rollouts.endings(row.id):
        outcomes[outcome] += count
        if outcome in _FAILED:
            reasons[why.value if why else "unnamed"] += count
    plan = row.plan
    at_it = sum(outcomes[outcome] for outcome in AT_IT)
    return {
        "id": row.id,
        "state": row.state.value,
        "cause": row.cause.value if row.cause else None,
        "why": row.why,
        **target(row.target),
        "signature_sha256": row.target.signature_sha256,
        "to": row.to,
        "canaries": list(plan.canaries) if plan else [],
        "waves": wave_words(plan.waves) if plan else [],
        "wave": row.wave,
        "wave_count": plan.wave_count if plan else 1,
        "max_failures": plan.gate.max_failures if plan else None,
        "plan": codec.encode(plan) if plan else None,
        **_standing(tx, row),
        "policy": codec.encode(row.policy),
        "allow_downgrade": row.allow_downgrade,
        "created_at": row.created_at,
        "created_by": row.created_by,
        "ended_at": row.ended_at,
        "counts": {
            "total": outcomes.total(),
            **{outcome.value: outcomes[outcome] for outcome in Outcome},
            "asked": at_it,
        },
        "by_reason": dict(reasons),
    }


def _standing(tx: Transaction, row: RolloutRow) -> View:
    if row.plan is None:
        return {"wave_states": [], "blocked": [], "approved_by": "", "evidence": {}, "excused": 0}
    found = tx.rollouts.machine(row.id)
    seen = found.excused.by_outcome()
    return {
        "wave_states": [state.value for state in found.wave_states()],
        "blocked": list(found.blocked),
        "approved_by": found.approved_by,
        "evidence": {kind: codec.encode(told) for kind, told in found.evidence.items()},
        "excused": seen[Outcome.BAD] + seen[Outcome.SILENT],
    }
