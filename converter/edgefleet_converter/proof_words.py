"""A budget that was held on examples that the choice did not see, in a sentence. Pure."""

from __future__ import annotations

from edgefleet_contract.canonical import Json


def proof_in_words(proof: Json) -> str:
    """The sentence for `proof` of a report; empty where it has not the figures.

    >>> lost = {"value": 0.004, "low": -0.002, "high": 0.01}
    >>> counts = {"looks": 2, "choice_examples": 270, "proof_examples": 270}
    >>> proof = {"max_accuracy_drop": 0.01, **counts, "proven": {"accuracy_drop": lost}}
    >>> proof_in_words(proof).partition(", where ")[2]
    '0.40 are lost (-0.2 to 1.0, 95 % over 2 looks; larger cuts were over: 1)'
    """
    if not isinstance(proof, dict):
        return ""
    proven = proof.get("proven")
    lost = _lost(proven) if isinstance(proven, dict) else None
    most, looks = _number(proof.get("max_accuracy_drop")), _number(proof.get("looks"))
    seen, kept = _number(proof.get("choice_examples")), _number(proof.get("proof_examples"))
    if lost is None or most is None or looks is None or seen is None or kept is None:
        return ""
    value, low, high = (100 * one for one in lost)
    times = "1 look" if looks == 1 else f"{looks:.0f} looks; larger cuts were over: {looks - 1:.0f}"
    return (
        f"{100 * most:.2f} points are allowed: chosen by {seen:.0f} held-out examples, proven on "
        f"the {kept:.0f} others, where {value:.2f} are lost ({low:.1f} to {high:.1f}, 95 % over "
        f"{times})"
    )


def _lost(proven: dict[str, Json]) -> tuple[float, float, float] | None:
    """The drop with its interval; without classes, the share that is decided otherwise."""
    drop, same = proven.get("accuracy_drop"), proven.get("agreement")
    told = drop if isinstance(drop, dict) else same if isinstance(same, dict) else {}
    value, low, high = (_number(told.get(name)) for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return None
    return (value, low, high) if isinstance(drop, dict) else (1 - value, 1 - high, 1 - low)


def _number(value: Json) -> float | None:
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
