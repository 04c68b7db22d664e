"""What devices tell of a model, as evidence for the rollouts that asked for it.

Requests and latencies come with every sample; windows of drift, where a device counts them, are
added up while the model serves. A device whose outputs were as far off under the model before says
nothing against the new one: it is where it stands. A window that comes twice counts once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edgefleet_contract.reported import Event
from edgefleet_contract.telemetry import ModelTelemetry
from edgefleet_fleet import drift_watch
from edgefleet_fleet.drift_watch import histograms, is_enough, merged, outputs_drifted
from edgefleet_fleet.happenings import Happening, HistoryKind
from edgefleet_fleet.model_gates import NO_EVIDENCE, NO_REFERENCE, Evidence, Reference
from edgefleet_fleet.observations import (
    Told,
    compared_by,
    told_more,
    told_outputs,
    told_shadow,
)
from edgefleet_fleet.records import Bundle, MemberRow, RolloutRow
from edgefleet_fleet.references import References
from edgefleet_fleet.rollout_plan import Plan
from edgefleet_fleet.rollout_states import State
from edgefleet_fleet.roster import Outcome
from edgefleet_fleet.work import Room, Work

_BEFORE = 50
"""Samples of the model before that are looked at."""


class ModelWatch:
    """Takes telemetry and reports of shadows; `learned` hears of each rollout's new evidence."""

    def __init__(
        self, room: Room, learned: Callable[[Work, str, MemberRow, Evidence], None]
    ) -> None:
        self._references = References(room.shelf)
        self._learned = learned

    def usual(self, work: Work, bundle: Bundle, given: Reference) -> Reference:
        """What the gates of a rollout compare with: what was given, else the bundle's own."""
        if given != NO_REFERENCE:
            return given
        built = self._references.first_of(work.tx, bundle.digest)
        return drift_watch.usual(built) if built is not None else NO_REFERENCE

    def observe(self, work: Work, sample: ModelTelemetry) -> None:
        """Take a sample of a model."""
        for row, member in work.tx.rollouts.of_device(sample.device):
            is_it = (row.target.slot, row.target.version) == (sample.slot, sample.version)
            if not is_it or row.state is not State.RUNNING or row.plan is None:
                continue
            if member.outcome in (Outcome.ACTIVE, Outcome.GOOD):
                told = work.tx.rollouts.told(row.id, sample.device)
                plan = row.plan
                told, more = told_more(told, sample, plan.envelope, per_device=plan.per_device)
                told, drift = self._watch(work, row, plan, told, sample)
                self._learn(work, row.id, member, told, more + drift)

    def compare(self, work: Work, event: Event) -> None:
        """Take a shadow's report: how often the candidate agreed with the model that serves."""
        compared, agreed = compared_by(event.measurements or {})
        if not compared:
            return
        order = work.tx.orders.get(event.device, event.order_seq)
        for rollout in order.asks if order is not None else ():
            row, member = work.tx.rollouts.get(rollout), self._member(work, rollout, event.device)
            if row is None or row.plan is None or member is None:
                continue
            told = work.tx.rollouts.told(rollout, event.device)
            news = told_shadow(told, compared, agreed, per_device=row.plan.per_device)
            self._learn(work, rollout, member, *news)

    def _watch(
        self, work: Work, row: RolloutRow, plan: Plan, told: Told, sample: ModelTelemetry
    ) -> tuple[Told, Evidence]:
        window, bundle = sample.drift, row.target.bundle_sha256
        if window is None or told.window_at == sample.ts:
            return told, NO_EVIDENCE
        built = self._references.named(work.tx, bundle, window.reference)
        if built is None or not window.fits(built):
            return told, NO_EVIDENCE
        if told.drifted_before is None:
            told = replace(told, drifted_before=self._drifted_before(work, row, sample))
        whole = merged([found for found in (told.window, window) if found is not None])
        assert whole is not None
        told = replace(told, window=whole, window_at=sample.ts)
        seen = histograms(built, whole)
        first = self._references.first_of(work.tx, bundle)
        is_own = first is not None and plan.reference == drift_watch.usual(first)
        adds_up = (
            drift_watch.same_answers(built, first)
            if is_own and first is not None
            else len(seen.outputs) == len(plan.reference.outputs)
        )
        is_off = outputs_drifted(built, whole) and not told.drifted_before
        if is_enough(built, whole) and is_off != bool(told.evidence.drifted):
            word = "drifted" if is_off else "as usual"
            words = f"outputs of {sample.model}@{sample.version} in {sample.slot}, {row.id}"
            work.happened(sample.device, HistoryKind.DRIFT, Happening(word, words))
        return told_outputs(
            told,
            seen.outputs if adds_up else (),
            seen.confidence,
            drifted=is_off if is_enough(built, whole) else None,
            per_device=plan.per_device,
        )

    def _drifted_before(self, work: Work, row: RolloutRow, sample: ModelTelemetry) -> bool:
        """Whether the outputs of what served in the slot before were far off on this device too."""
        samples = work.tx.history.model(sample.device, sample.slot, limit=_BEFORE)
        older = [found for found in samples if found.version != row.target.version]
        if not older:
            return False
        last = (older[-1].model, older[-1].version)
        windows = [found.drift for found in older if (found.model, found.version) == last]
        whole = merged([window for window in windows if window is not None])
        for bundle in work.tx.bundles.find_version(*last) if whole is not None else ():
            assert whole is not None
            built = self._references.named(work.tx, bundle.digest, whole.reference)
            if built is not None:
                return outputs_drifted(built, whole)
        return False

    def _learn(
        self, work: Work, rollout: str, member: MemberRow, told: Told, more: Evidence
    ) -> None:
        work.tx.rollouts.set_told(rollout, member.device, told)
        if more != NO_EVIDENCE:
            self._learned(work, rollout, member, more)

    @staticmethod
    def _member(work: Work, rollout: str, device: str) -> MemberRow | None:
        found = work.tx.rollouts.of_device(device)
        return next((member for row, member in found if row.id == rollout), None)
