"""From what a device tells of a model to evidence for the model gates. No I/O.

Counts of a device rise from the start of its agent: the difference to the sample before is what is
new, and after a restart the count itself. Each device has the weight of `per_device` requests at
most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgefleet_contract.drift import Window
from edgefleet_contract.telemetry import ModelTelemetry
from edgefleet_fleet.model_gates import NO_EVIDENCE, Envelope, Evidence, bounded

_MIB = 1024 * 1024
_JUDGED = 10
"""Requests in an interval before its 95th percentile says something."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a device told so far: all of it, and the counts of its last sample.

    `window` is what it counted of outputs since the model serves, with the time of the last sample
    that had one; `drifted_before` says whether they were off under the model before, None where
    nobody looked yet.
    """

    evidence: Evidence = NO_EVIDENCE
    requests: int = -1
    failures: int = 0
    window: Window | None = None
    window_at: int = 0
    drifted_before: bool | None = None


def told_more(
    told: Told, sample: ModelTelemetry, envelope: Envelope, *, per_device: int
) -> tuple[Told, Evidence]:
    """What a device has told with this sample, and by how much that is more for the gates.

    The first sample counts its last interval alone: the model may have served before it was asked.
    """
    first = told.requests < 0
    restarted = sample.requests < told.requests or sample.failures < told.failures
    requests = sample.requests - (0 if first or restarted else told.requests)
    failures = sample.failures - (0 if first or restarted else told.failures)
    known = told.evidence
    found = replace(
        known,
        requests=known.requests + max(requests, failures),
        failures=known.failures + failures,
    )
    if envelope.is_given and sample.interval_requests >= _JUDGED:
        slow = bool(envelope.p95_us) and sample.latency_p95_us > envelope.p95_us
        fat = bool(envelope.ram_mib) and sample.worker_rss_bytes > envelope.ram_mib * _MIB
        found = replace(found, measured=1, slow=int(slow), fat=int(fat))
    known_now = replace(told, requests=sample.requests, failures=sample.failures)
    return _difference(known_now, found, per_device)


def compared_by(figures: Mapping[str, float]) -> tuple[int, int]:
    """How many copies of a shadow's report [wire-3.8] say something, and how many of them agree.

    What cannot be judged (a tensor that is no scores) neither agrees nor differs; a copy that the
    candidate answered with an error differs, as it does for the device. Agents of before did not
    tell how many could be judged: all that they answered.
    """
    errors = max(0, int(figures.get("shadow_errors", 0)))
    answered = max(0, int(figures.get("shadow_requests", 0)) - errors)
    judged = max(0, min(answered, int(figures.get("shadow_judged", answered))))
    share = figures.get("shadow_agreement")
    if share is None:
        return errors, 0
    return judged + errors, max(0, min(judged, round(judged * share)))


def told_shadow(
    told: Told, compared: int, agreed: int, *, per_device: int
) -> tuple[Told, Evidence]:
    """The same for a shadow's report, which replaces an earlier one."""
    return _difference(told, replace(told.evidence, compared=compared, agreed=agreed), per_device)


def told_outputs(
    told: Told,
    outputs: tuple[int, ...],
    confidence: tuple[int, ...],
    *,
    drifted: bool | None,
    per_device: int,
) -> tuple[Told, Evidence]:
    """The same for histograms of outputs and confidences since the model began to serve, and
    whether they are far off; None where they are too few to see that."""
    watched = 0 if drifted is None else 1
    found = replace(
        told.evidence,
        outputs=outputs,
        confidence=confidence,
        watched=watched,
        drifted=int(bool(drifted)),
    )
    return _difference(told, found, per_device)


def _difference(told: Told, found: Evidence, per_device: int) -> tuple[Told, Evidence]:
    more = bounded(found, per_device) - bounded(told.evidence, per_device)
    return replace(told, evidence=found), more
