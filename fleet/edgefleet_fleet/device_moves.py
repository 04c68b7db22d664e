"""From where to where a device of a rollout may come, and why: a table. No I/O, no clock.

It is held against every step of the machine by the tests; the diagram in docs/design/rollout.md is
printed from it. What is not in it does not happen. A device that leaves the fleet is BLOCKED for a
moment, from wherever it stood, so that it counts no more; that is not in the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgefleet_fleet.roster import Outcome

_ENDS: Final = {
    Outcome.GOOD: "committed",
    Outcome.BAD: "failed, or went back",
    Outcome.REFUSED: "its situation forbids it",
    Outcome.UNDELIVERED: "could not fetch it, no try is left",
    Outcome.RETRYING: "could not fetch it",
    Outcome.WITHDRAWN: "ended, or taken by a newer one",
}

_STAYS: Final = (
    *(Outcome.BAD, Outcome.UNDELIVERED, Outcome.REFUSED),
    *(Outcome.WITHDRAWN, Outcome.REVERTED),
)

MOVES: Final[Mapping[Outcome, Mapping[Outcome, str]]] = {
    Outcome.PENDING: {
        Outcome.ASKED: "its turn came",
        Outcome.BLOCKED: "its class is blocked",
        Outcome.WITHDRAWN: _ENDS[Outcome.WITHDRAWN],
    },
    Outcome.ASKED: {
        Outcome.STARTED: "answered",
        Outcome.ACTIVE: "runs it",
        Outcome.HELD: "gate tripped",
        **_ENDS,
    },
    Outcome.STARTED: {
        Outcome.ACTIVE: "runs it",
        Outcome.HELD: "gate tripped",
        **_ENDS,
    },
    Outcome.ACTIVE: {Outcome.SILENT: "not heard of", **_ENDS},
    Outcome.SILENT: {
        Outcome.STARTED: "heard of again",
        Outcome.ACTIVE: "heard of again",
        Outcome.REVERTING: "told to go back",
        **_ENDS,
    },
    Outcome.RETRYING: {
        Outcome.PENDING: "time for the next try",
        Outcome.BLOCKED: "its class is blocked",
        Outcome.WITHDRAWN: _ENDS[Outcome.WITHDRAWN],
    },
    Outcome.HELD: {
        Outcome.PENDING: "operator resumed",
        Outcome.BAD: "ran it before it was held",
        Outcome.WITHDRAWN: _ENDS[Outcome.WITHDRAWN],
    },
    Outcome.GOOD: {
        Outcome.BAD: "kept dying",
        Outcome.SILENT: "gone while its wave soaks",
        Outcome.REVERTING: "told to go back",
    },
    Outcome.REVERTING: {Outcome.REVERTED: "is back, or taken by a newer one"},
    Outcome.BLOCKED: {Outcome.WITHDRAWN: "taken by a newer one"},
    **{outcome: {} for outcome in _STAYS},
}


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {Outcome.PENDING}"]
    lines += [
        f"    {old} --> {new}: {why}" for old, moves in MOVES.items() for new, why in moves.items()
    ]
    lines += [f"    {old} --> [*]" for old, moves in MOVES.items() if not moves]
    return "\n".join(lines)
