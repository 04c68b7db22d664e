"""How far what is served has drifted, as the agent judged it and the front shows it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from edgefleet_contract import codec
from edgefleet_contract.drift import Divergence

HELP: Final = {
    "edgefleet_drift_psi": "Population stability index against the reference of the bundle.",
    "edgefleet_drift_js": "Jensen-Shannon divergence against it, bits.",
    "edgefleet_drift_noise": "The index that chance alone exceeds once in a thousand times.",
    "edgefleet_drift_examples": "Examples that were judged together.",
}


@dataclass(frozen=True, slots=True)
class Drift:
    """One judgement: of so many examples, how far each distribution is off."""

    examples: int
    judged: tuple[Divergence, ...]


def parse_drift(message: dict[str, Any]) -> Drift:
    """The judgement in a message of the agent."""
    parts = {name: message[name] for name in ("examples", "judged")}
    return codec.decode(Drift, parts, what="drift")


def samples(name: str, labels: str, drift: Drift) -> list[str]:
    """The lines of a metric of `HELP`, for one model."""
    if name == "edgefleet_drift_examples":
        return [f"{name}{{{labels}}} {drift.examples}"]
    key = name.rpartition("_")[2]
    lines = []
    for one in drift.judged:
        tensor = one.tensor.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        place = f',tensor="{tensor}",kind="{one.kind}"'
        place += f',column="{one.column}"' if one.column >= 0 else ""
        lines.append(f"{name}{{{labels}{place}}} {getattr(one, key):.6g}")
    return lines
