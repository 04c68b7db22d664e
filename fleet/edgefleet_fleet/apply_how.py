"""How a rollout goes, in flat words: a declared one is held against one that began. Pure.

Left out is what is one rollout's own and no more: its salt, its author, its moments, the permission
to go back. The reference of the gates counts only where the file gives one; else it is that of the
bundle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from edgefleet_contract import codec
from edgefleet_contract.order_policy import Policy
from edgefleet_fleet.cohort import wave_words
from edgefleet_fleet.rollout_plan import Plan

_OWN: Final = ("salt", "waves", "model_gates", "author", "start_at", "expires_at", "per_device")
_GIVEN: Final = "reference."


def how(plan: Plan, policy: Policy, *, sealed: bool) -> dict[str, Any]:
    """The words of a rollout, each under its name in the API: `gate.limit`, `policy.windows`."""
    whole: Any = codec.encode(plan)
    words: dict[str, Any] = {name: value for name, value in whole.items() if name not in _OWN}
    words["waves"] = wave_words(plan.waves)
    words["model_gates"] = {gate.kind.value: codec.encode(gate) for gate in plan.model_gates}
    words |= {"policy": codec.encode(policy), "sealed": sealed}
    return dict(_flat(words))


def differences(declared: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """What of a rollout is not as it is declared, in sentences; none where it is."""
    names = sorted(declared.keys() | there.keys())
    has_reference = any(declared[name] for name in declared if name.startswith(_GIVEN))
    return [
        f"{name} is {_said(there.get(name))}, declared is {_said(declared.get(name))}"
        for name in names
        if declared.get(name) != there.get(name) and (has_reference or not name.startswith(_GIVEN))
    ]


def _flat(words: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in words.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _said(value: Any) -> str:
    if value is None or value in ("", []):
        return "none"
    if isinstance(value, list):
        return ",".join(map(_said, value))
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
