"""What a person may do with a rollout that there is: one table, for the API and the command line.

No I/O, no clock. What each does in which state is the machine's matter (`rollout_states.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from edgefleet_fleet import rollout_events as events
from edgefleet_fleet.rollout_states import Ending


class Verb(StrEnum):
    """The word for it: in addresses of the API, and on the command line."""

    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    REVERT = "revert"
    START = "start"
    APPROVE = "approve"
    DENY = "deny"
    PROMOTE = "promote"


SENTENCES: Final[Mapping[Verb, str]] = {
    Verb.PAUSE: "Stop asking more devices.",
    Verb.RESUME: "Go on; the failures so far are taken as seen.",
    Verb.ABORT: "End it; devices that have the new version keep it.",
    Verb.REVERT: "Send devices that have it back to what they ran; of a completed one too.",
    Verb.START: "Begin a draft, or one that is scheduled, now.",
    Verb.APPROVE: "Agree with it, as a second person.",
    Verb.DENY: "Say no to it.",
    Verb.PROMOTE: "Open the next wave: one that waits for a person, or before its gates let it.",
}
_EVENTS: Final[Mapping[Verb, Callable[[str], events.Event]]] = {
    Verb.PAUSE: lambda _: events.Paused(),
    Verb.RESUME: lambda _: events.Resumed(),
    Verb.ABORT: lambda _: events.Aborted(Ending.KEEP),
    Verb.REVERT: lambda _: events.Aborted(Ending.REVERT),
    Verb.START: lambda _: events.Started(),
    Verb.APPROVE: events.Approved,
    Verb.DENY: events.Denied,
    Verb.PROMOTE: lambda _: events.Promoted(),
}


def event_of(verb: Verb, who: str) -> events.Event:
    """What it is to the machine when this person says it."""
    return _EVENTS[verb](who)
