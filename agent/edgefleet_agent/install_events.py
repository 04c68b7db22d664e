"""What the install machine is told: events in. What each does to the device is `transitions`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from edgefleet_agent.device import Installed
from edgefleet_contract.bundle import Digest
from edgefleet_contract.orders import Order
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import TrustFloors


@dataclass(frozen=True, slots=True)
class OrderTaken:
    """A verified order that policy accepted."""

    order: Order


@dataclass(frozen=True, slots=True)
class OrderRejected:
    """A verified order that policy refused for what it asks."""

    order: Order
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Booted:
    """The agent started: after a power cut, a crash, or in peace."""


@dataclass(frozen=True, slots=True)
class Begin:
    """The shell has room for the next step."""


@dataclass(frozen=True, slots=True)
class Downloaded:
    """Every file of every new model is in the store, verified; `transferred` bytes were fetched."""

    chosen: tuple[Installed, ...]
    now: int = 0
    transferred: int = 0


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A download broke off in a way that waiting may cure. `jitter` is in [0, 1).

    `wait_s` is what a server asked for, seconds; `transferred` counts bytes of the wire.
    `reason` is NOT_FOUND where every source answered and none has it: a mirror may lag behind;
    STORAGE_FAILED where what had arrived was spoilt on the disk.
    """

    detail: str
    now: int
    jitter: float
    wait_s: float = 0.0
    transferred: int = 0
    reason: Reason = Reason.DOWNLOAD_FAILED


@dataclass(frozen=True, slots=True)
class Held:
    """A download stopped for a reason that is nobody's fault: the day's budget, a metered link."""

    detail: str
    now: int
    wait_s: float
    transferred: int = 0


@dataclass(frozen=True, slots=True)
class Staged:
    """Every file of every new model was read again and is as signed."""


@dataclass(frozen=True, slots=True)
class WindowOpened:
    """It is a time, and the board is in a state, in which the policy lets it swap."""


@dataclass(frozen=True, slots=True)
class TrialPassed:
    """Every new model reproduced its golden outputs inside its limits."""


@dataclass(frozen=True, slots=True)
class ShadowPassed:
    """Every new model answered live requests unseen, and agreed as the policy asks."""


@dataclass(frozen=True, slots=True)
class CanaryPassed:
    """Every new model answered a share of the live requests, as well as the policy asks."""


@dataclass(frozen=True, slots=True)
class Activated:
    """The new models answer requests."""


@dataclass(frozen=True, slots=True)
class ProbationPassed:
    """They served for as long as the policy asks."""


@dataclass(frozen=True, slots=True)
class StepFailed:
    """The command at hand did not work. `slot` is the model to blame, where there is one."""

    reason: Reason
    detail: str = ""
    slot: str = ""


@dataclass(frozen=True, slots=True)
class ServeFailed:
    """A committed model could not be made to serve at a start: its file or its runtime changed."""

    slot: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class KeptDying:
    """A model that serves dies again and again, whatever is asked of it: `detail` says how."""

    slot: str
    bundle: Digest
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TrustSeen:
    """Metadata of these versions were verified; older ones are not believed from now on."""

    floors: TrustFloors
    now: int


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The publishers took releases back: these digests may not run here any more.

    `go_back`: slots that served one of them serve what they served before, where that may run;
    else they stop.
    """

    digests: tuple[Digest, ...]
    go_back: bool


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What was committed before serves again."""


@dataclass(frozen=True, slots=True)
class RollbackFailed:
    """It does not."""

    detail: str = ""


Event: TypeAlias = (
    OrderTaken
    | OrderRejected
    | Booted
    | Begin
    | Downloaded
    | Interrupted
    | Held
    | Staged
    | WindowOpened
    | TrialPassed
    | ShadowPassed
    | CanaryPassed
    | Activated
    | ProbationPassed
    | StepFailed
    | ServeFailed
    | KeptDying
    | TrustSeen
    | Withdrawn
    | RolledBack
    | RollbackFailed
)
