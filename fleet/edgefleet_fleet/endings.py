"""What the end of an install says of the model: good, bad, not delivered, or refused. No I/O.

A download that failed says something of the network, a refusal something of the device: both have
a budget of their own, so that a bad network does not stop a good model. Whatever is not known to be
one of these counts against the model, and so does whatever went back after it ran.
"""

from __future__ import annotations

from typing import Final

from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_fleet.roster import Outcome

SAYS_NOTHING: Final = frozenset({Reason.SUPERSEDED, Reason.STALE_ORDER})
"""An order that a newer one replaced, or that came late, says nothing about the model."""
DELIVERY: Final = frozenset({Reason.DOWNLOAD_FAILED, Reason.NOT_FOUND, Reason.NO_SPACE})
ON_THE_WAY: Final = frozenset({Reason.DOWNLOAD_FAILED, Reason.NOT_FOUND})
"""Of these, what may be otherwise at another time; a full disk does not grow."""
SITUATION: Final = frozenset(
    {
        *(Reason.ORDER_EXPIRED, Reason.METADATA_EXPIRED, Reason.METADATA_ROLLBACK),
        *(Reason.POLICY_UNSUPPORTED, Reason.AGENT_TOO_OLD, Reason.QUARANTINED, Reason.DOWNGRADE),
    }
)
SELFTEST: Final = frozenset(
    {
        *(Reason.LOAD_FAILED, Reason.GOLDEN_MISMATCH, Reason.TRIAL_CRASHED, Reason.TRIAL_TIMEOUT),
        *(Reason.LATENCY_EXCEEDED, Reason.MEMORY_EXCEEDED),
    }
)
"""What a trial says of this model on this kind of board."""
_WENT_BACK: Final = frozenset({Phase.ROLLED_BACK, Phase.ROLLBACK_FAILED})


def ending_of(phase: Phase, reason: Reason | None) -> Outcome | None:
    """How a phase ends what a device was asked; None: it does not."""
    if not phase.is_final or reason in SAYS_NOTHING:
        return None
    if phase is Phase.COMMITTED:
        return Outcome.GOOD
    if phase in _WENT_BACK:
        return Outcome.BAD
    if reason in DELIVERY:
        return Outcome.UNDELIVERED
    if reason in SITUATION or phase is Phase.CANCELED:
        return Outcome.REFUSED
    return Outcome.BAD
