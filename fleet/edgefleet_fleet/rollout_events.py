"""What happens to a rollout, and what it wants done: values without behaviour.

Time is no event of its own but for `Tick`: every step is told what time it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from edgefleet_fleet.model_gates import Evidence
from edgefleet_fleet.rollout_states import Ending
from edgefleet_fleet.roster import Outcome


@dataclass(frozen=True, slots=True)
class Submitted:
    """Its author wants it to happen."""


@dataclass(frozen=True, slots=True)
class Approved:
    """Somebody agrees."""

    who: str


@dataclass(frozen=True, slots=True)
class Denied:
    """Somebody does not."""

    who: str


@dataclass(frozen=True, slots=True)
class Started:
    """A person begins it now: a draft as if submitted, a scheduled one before its time."""


@dataclass(frozen=True, slots=True)
class Enlisted:
    """These devices (with their hardware classes) are those that the target means now.

    `blocked` classes are those on which this very bundle failed before.
    """

    devices: Mapping[str, str]
    blocked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Joined:
    """A device that the target matches is there."""

    device: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """A device that was asked is at it: STARTED, or ACTIVE once it runs the model."""

    device: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Ended:
    """A device ended what it was asked: GOOD, BAD, UNDELIVERED or REFUSED.

    `may_retry`: nothing but its way to the files failed, so that it may be asked again.
    """

    device: str
    outcome: Outcome
    failed_selftest: bool = False
    may_retry: bool = False


@dataclass(frozen=True, slots=True)
class Back:
    """A device that was told to go back reports that it did."""

    device: str


@dataclass(frozen=True, slots=True)
class Taken:
    """A newer rollout asks this device for the same slot."""

    device: str


@dataclass(frozen=True, slots=True)
class Left:
    """A device left the fleet: nobody waits for it, and it counts no more."""

    device: str


@dataclass(frozen=True, slots=True)
class Observed:
    """Devices of a class told something new of the model; `more` is added to what was known."""

    kind: str
    more: Evidence


@dataclass(frozen=True, slots=True)
class Promoted:
    """A person opens the next wave."""


@dataclass(frozen=True, slots=True)
class Paused:
    """A person stops it for now."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A person lets it go on, and takes the failures so far as seen."""


@dataclass(frozen=True, slots=True)
class Aborted:
    """A person ends it; who has the new version keeps it, or is told to go back."""

    ending: Ending = Ending.KEEP


@dataclass(frozen=True, slots=True)
class Replaced:
    """A newer rollout for the same slot means all of these devices."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went on."""


Event: TypeAlias = (
    Submitted
    | Approved
    | Denied
    | Started
    | Enlisted
    | Joined
    | Answered
    | Ended
    | Back
    | Taken
    | Left
    | Observed
    | Promoted
    | Paused
    | Resumed
    | Aborted
    | Replaced
    | Tick
)


@dataclass(frozen=True, slots=True)
class Enlist:
    """Find the devices that the target means, and say `Enlisted`."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Order this device to run the target."""

    device: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Order this device to run what it ran before."""

    device: str


@dataclass(frozen=True, slots=True)
class PutOff:
    """Order this device to run what it ran before, until it is asked again.

    What it says of its orders until now concerns this rollout no more.
    """

    device: str


@dataclass(frozen=True, slots=True)
class Block:
    """Remember that this bundle is not for this hardware class."""

    kind: str


Command: TypeAlias = Enlist | Ask | Withdraw | PutOff | Block
