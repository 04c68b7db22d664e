"""Gates that look at what the model answers, not only at whether it starts. No I/O.

Evidence is pooled by hardware class from what devices tell; every gate has a limit, a least sample
and a sequential test (`sequential.py`), so that it may be looked at after each message. A gate
trips when the sample is there, the figure is beyond its limit *and* the evidence says that this is
no chance. A gate that somebody asked for by name must also have its sample before a wave passes.

Figures over requests are bounded by what one device may bring (`per_device`), so that one broken
board with many requests is not the fleet.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgefleet_contract.drift import jensen_shannon, psi
from edgefleet_contract.errors import Malformed
from edgefleet_fleet.sequential import log_e_mean_below, log_e_other_shares, log_e_rate_above


class Kind(StrEnum):
    """What a model gate looks at."""

    ERRORS = "errors"
    AGREEMENT = "agreement"
    ACCURACY = "accuracy"
    SLOW = "slow"
    MEMORY = "memory"
    DRIFT = "drift"
    PSI = "psi"
    JS = "js"
    CONFIDENCE = "confidence"


SAMPLE: Final[Mapping[Kind, int]] = {
    Kind.ERRORS: 100,
    Kind.AGREEMENT: 50,
    Kind.ACCURACY: 50,
    Kind.SLOW: 3,
    Kind.MEMORY: 3,
    Kind.DRIFT: 3,
    Kind.PSI: 500,
    Kind.JS: 500,
    Kind.CONFIDENCE: 200,
}
"""The least sample of each, counted in `COUNTED`."""
COUNTED: Final[Mapping[Kind, str]] = {
    Kind.ERRORS: "requests",
    Kind.AGREEMENT: "compared answers",
    Kind.ACCURACY: "labels",
    Kind.SLOW: "devices",
    Kind.MEMORY: "devices",
    Kind.DRIFT: "devices",
    Kind.PSI: "answers",
    Kind.JS: "answers",
    Kind.CONFIDENCE: "answers",
}
_ALPHA: Final = 0.01
_PSI_SHIFT: Final = 0.25
_SURE: Final = math.log(1000)


@dataclass(frozen=True, slots=True)
class ModelGate:
    """One gate: what it looks at, its limit, its least sample (0: the usual one).

    Limits: `errors`, `slow`, `memory`, `drift`: the largest share of requests that fail, of devices
    whose 95th percentile or memory is over the envelope, whose outputs drifted.
    `agreement`, `accuracy`: the smallest share of answers that agree with the previous model, that
    labels confirm. `psi`, `js`: the largest distance. `confidence`: the largest drop of the mean.
    """

    kind: Kind
    limit: float
    min_sample: int = 0
    required: bool = True

    def __post_init__(self) -> None:
        if not 0.0 < self.limit <= (1.0 if self.kind is not Kind.PSI else 100.0):
            raise Malformed(f"gate {self.kind.value}: a limit of {self.limit:g}")
        if self.min_sample < 0:
            raise Malformed(f"gate {self.kind.value}: a sample of {self.min_sample}")

    @property
    def sample(self) -> int:
        """What it needs to see."""
        return self.min_sample or SAMPLE[self.kind]


DEFAULT_GATES: Final = (
    ModelGate(Kind.ERRORS, 0.05, required=False),
    ModelGate(Kind.SLOW, 0.05, required=False),
    ModelGate(Kind.MEMORY, 0.05, required=False),
    ModelGate(Kind.DRIFT, 0.05, required=False),
)
"""What every rollout is watched for: they can stop it, and it does not wait for their sample."""


@dataclass(frozen=True, slots=True)
class Reference:
    """How the previous model answers: counts of its outputs, and of its confidence in equal bins
    over [0, 1]."""

    outputs: tuple[int, ...] = ()
    confidence: tuple[int, ...] = ()


NO_REFERENCE: Final = Reference()


@dataclass(frozen=True, slots=True)
class Envelope:
    """What requests to the model may take on any board of the rollout; 0 is not held."""

    p95_us: int = 0
    ram_mib: int = 0

    @property
    def is_given(self) -> bool:
        """Whether anything is held."""
        return self.p95_us > 0 or self.ram_mib > 0


NO_ENVELOPE: Final = Envelope()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What devices told of a model, added up. Law: `a + b - b == a`.

    `outputs` and `confidence` are counted as in `Reference`; `measured` devices could be held
    against the plan's envelope, `slow` and `fat` of them are over it; `watched` devices
    answered often enough to see a drift (`has_drifted`), which `drifted` of them have.
    """

    requests: int = 0
    failures: int = 0
    compared: int = 0
    agreed: int = 0
    labelled: int = 0
    right: int = 0
    measured: int = 0
    slow: int = 0
    fat: int = 0
    watched: int = 0
    drifted: int = 0
    outputs: tuple[int, ...] = ()
    confidence: tuple[int, ...] = ()

    def __add__(self, other: Evidence) -> Evidence:
        return self._with(other, 1)

    def __sub__(self, other: Evidence) -> Evidence:
        return self._with(other, -1)

    def _with(self, other: Evidence, sign: int) -> Evidence:
        found: dict[str, object] = {}
        for name in _NAMES:
            mine, its = getattr(self, name), getattr(other, name)
            if isinstance(mine, int):
                found[name] = mine + sign * its
            else:
                width = max(len(mine), len(its))
                pairs = zip(_padded(mine, width), _padded(its, width), strict=True)
                sums = tuple(a + sign * b for a, b in pairs)
                found[name] = sums if any(sums) else ()
        return Evidence(**found)  # type: ignore[arg-type] # by construction of its own fields


NO_EVIDENCE: Final = Evidence()
_NAMES: Final = tuple(field.name for field in dataclasses.fields(Evidence))


def bounded(evidence: Evidence, per_device: int) -> Evidence:
    """The evidence of one device, with no more weight than `per_device` requests have."""
    requests, failures = _scaled(evidence.requests, evidence.failures, per_device)
    compared, agreed = _scaled(evidence.compared, evidence.agreed, per_device)
    return dataclasses.replace(
        evidence,
        requests=requests,
        failures=failures,
        compared=compared,
        agreed=agreed,
        outputs=_shrunk(evidence.outputs, per_device),
        confidence=_shrunk(evidence.confidence, per_device),
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """What a gate reads: the figure, of how large a sample, and the evidence against the model.

    `beyond` says that the figure is past the limit; only then is the evidence weighed: `log_e` is
    the logarithm of an e-value.
    """

    figure: float
    sample: int
    log_e: float
    beyond: bool


def read(gate: ModelGate, evidence: Evidence, reference: Reference) -> Reading:
    """What one gate makes of the evidence."""
    match gate.kind:
        case Kind.ERRORS:
            return _share(evidence.failures, evidence.requests, gate.limit)
        case Kind.AGREEMENT:
            return _share_at_least(evidence.agreed, evidence.compared, gate.limit)
        case Kind.ACCURACY:
            return _share_at_least(evidence.right, evidence.labelled, gate.limit)
        case Kind.SLOW:
            return _share(evidence.slow, evidence.measured, gate.limit)
        case Kind.MEMORY:
            return _share(evidence.fat, evidence.measured, gate.limit)
        case Kind.DRIFT:
            return _share(evidence.drifted, evidence.watched, gate.limit)
        case Kind.CONFIDENCE:
            return _confidence(evidence.confidence, reference.confidence, gate.limit)
        case Kind.PSI:
            return _drift(evidence.outputs, reference.outputs, gate.limit, psi)
        case Kind.JS:
            return _drift(evidence.outputs, reference.outputs, gate.limit, jensen_shannon)


def objection(
    gates: Sequence[ModelGate], evidence: Mapping[str, Evidence], reference: Reference
) -> str:
    """Which gate trips on which hardware class, and why; empty where none does."""
    enough = math.log(e_value_needed(gates, evidence))
    for name, found in sorted(evidence.items()):
        for gate in gates:
            seen = read(gate, found, reference)
            if seen.sample >= gate.sample and seen.beyond and seen.log_e >= enough:
                where = f" on {name}" if name else ""
                return (
                    f"{gate.kind.value}{where}: {seen.figure:.3g} where {gate.limit:.3g} is the"
                    f" limit, seen in {seen.sample}"
                )
    return ""


def e_value_needed(gates: Sequence[ModelGate], evidence: Mapping[str, Evidence]) -> float:
    """The e-value at which a gate trips.

    The chance of a false stop is shared out (Bonferroni): with g gates and c classes each may err
    with 1 % / (g·c), so all of them together, looked at for ever, stop a good model once in a
    hundred rollouts.
    """
    return max(1, len(gates) * len(evidence)) / _ALPHA


def missing(
    gates: Sequence[ModelGate],
    evidence: Mapping[str, Evidence],
    reference: Reference,
    devices: int,
) -> tuple[str, ...]:
    """Which gates that were asked for have not seen enough, of all that `devices` devices tell."""
    pooled = sum(evidence.values(), Evidence())
    found = []
    for gate in gates:
        seen, least = read(gate, pooled, reference).sample, needed(gate, devices)
        if gate.required and seen < least:
            found.append(f"gate {gate.kind.value}: {seen} of {least} {COUNTED[gate.kind]} seen")
    return tuple(found)


def needed(gate: ModelGate, devices: int) -> int:
    """The sample without which a wave of `devices` devices does not pass.

    A gate that counts devices needs no more of them than there are: where there is one canary, it
    is enough.
    """
    return min(gate.sample, devices) if COUNTED[gate.kind] == "devices" else gate.sample


def shares_of(counts: Sequence[int], width: int) -> tuple[float, ...]:
    """Counts as shares, each above 0: half a count is added to every bin."""
    wide = _padded(counts, width)
    total = sum(wide) + 0.5 * width
    return tuple((count + 0.5) / total for count in wide)


def has_drifted(outputs: Sequence[int], reference: Reference) -> bool:
    """Whether one device's outputs are far from the reference (PSI over 0.25), and not by chance.

    Seen device by device, a drift on a tenth of the boards is not thinned out by the others.
    """
    seen = _drift(outputs, reference.outputs, _PSI_SHIFT, psi)
    return seen.beyond and seen.log_e >= _SURE


def _share(bad: int, n: int, limit: float) -> Reading:
    figure = bad / n if n else 0.0
    beyond = figure > limit
    return Reading(figure, n, log_e_rate_above(bad, n, limit) if beyond else 0.0, beyond)


def _share_at_least(good: int, n: int, limit: float) -> Reading:
    wrong = _share(n - good, n, 1.0 - limit)
    return dataclasses.replace(wrong, figure=good / n if n else 1.0)


def _confidence(now: Sequence[int], before: Sequence[int], limit: float) -> Reading:
    """A drop of the mean of the confidences by more than `limit` from the reference's."""
    if not sum(before):
        return Reading(0.0, 0, 0.0, beyond=False)
    usual = _mean(before)
    drop = usual - _mean(now) if sum(now) else 0.0
    return Reading(drop, sum(now), log_e_mean_below(now, usual - limit), drop > limit)


def _drift(
    now: Sequence[int],
    before: Sequence[int],
    limit: float,
    distance: Callable[[Sequence[float], Sequence[float]], float],
) -> Reading:
    width = max(len(now), len(before))
    if not sum(before):
        return Reading(0.0, 0, 0.0, beyond=False)
    usual = shares_of(before, width)
    figure = distance(usual, shares_of(now, width)) if sum(now) else 0.0
    beyond = figure > limit
    evidence = log_e_other_shares(_padded(now, width), usual) if beyond else 0.0
    return Reading(figure, sum(now), evidence, beyond)


def _mean(counts: Sequence[int]) -> float:
    """The mean of values counted in equal bins over [0, 1], each at its bin's middle."""
    total = sum(count * (b + 0.5) / len(counts) for b, count in enumerate(counts))
    return total / sum(counts)


def _padded(counts: Sequence[int], width: int) -> tuple[int, ...]:
    return (*counts, *(0,) * (width - len(counts)))


def _scaled(n: int, hits: int, most: int) -> tuple[int, int]:
    return (n, hits) if n <= most else (most, round(hits * most / n))


def _shrunk(counts: tuple[int, ...], most: int) -> tuple[int, ...]:
    total = sum(counts)
    return counts if total <= most else tuple(count * most // total for count in counts)
