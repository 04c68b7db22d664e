"""The kill matrix as a part of the page: states as rows, faults as columns, counts in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HEAD = """
## The kill matrix

Every state of the install machine under every fault, on a device that serves a model and on one
that has none: each case in a process that is really killed, then mended, given its order again, and
after that another order. What must hold at every moment: what serves was committed, or is the
candidate whose turn it is, and every start serves at once what was committed; the device follows
the newest order, or says why not and keeps what it had, and always follows the one after it; who is
not to blame is not quarantined; the order's number and the floors of trust never fall; nothing is
left over; the agent does not die.

What a corrupt journal costs: with its newest copy the last step, which the order makes good when it
comes again, as a broker's does at every start; with both copies everything but the trust, so that
**such a device serves nothing until its order comes again**, and until then would take an order
that is older than one that it had followed.

Where the runtime starts no model at all while a device goes back, the one that failed is stopped,
and nothing serves until the next start.

A number is of cases; a letter says why a device, or both, cannot come into that square.

"""


@dataclass(frozen=True, slots=True)
class Square:
    """A square of the matrix for one of the two devices; `why_not` says why it cannot be."""

    state: str
    start: str
    fault: str
    tried: int
    violations: int
    why_not: str = ""

    @property
    def is_good(self) -> bool:
        """It was tried, or cannot be; nothing broke."""
        return not self.violations and (self.tried > 0 or bool(self.why_not))


def render(squares: Sequence[Square]) -> str:
    """The section; empty where there are none."""
    if not squares:
        return ""
    faults = list(dict.fromkeys(square.fault for square in squares))
    states = list(dict.fromkeys(square.state for square in squares))
    reasons = list(dict.fromkeys(square.why_not for square in squares if square.why_not))
    letters = {reason: chr(ord("a") + number) for number, reason in enumerate(reasons)}

    def cell(state: str, fault: str) -> str:
        both = [square for square in squares if (square.state, square.fault) == (state, fault)]
        tried, bad = sum(s.tried for s in both), sum(s.violations for s in both)
        notes = sorted({letters[s.why_not] for s in both if s.why_not})
        parts = [str(tried)] * bool(tried) + [f"**{bad} bad**"] * bool(bad) + notes
        return " ".join(parts)

    head = _line(["state", *faults]) + _line(["---"] * (len(faults) + 1))
    body = "".join(_line([state, *(cell(state, fault) for fault in faults)]) for state in states)
    why = "".join(f"- {letter}: {reason}\n" for reason, letter in letters.items())
    tried, bad = sum(s.tried for s in squares), sum(s.violations for s in squares)
    cannot = sum(1 for s in squares if s.why_not)
    total = (
        f"**{tried} tried, {bad} violations**; {len(squares)} squares, {cannot} of them cannot be:"
    )
    return f"{HEAD}{head}{body}\n{total}\n\n{why}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |\n"
