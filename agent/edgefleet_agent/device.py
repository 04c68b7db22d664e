"""The vocabulary of the install machine: the device's durable state, events in, commands out.

`Device` is what the journal holds, and all that must survive a power cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from edgefleet_contract.bundle import Digest
from edgefleet_contract.messages import Order, Phase, Target
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import TrustFloors

# --- state ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Installed:
    """A committed model: what the order named, and the variant and runtime chosen for it here."""

    target: Target
    variant: str
    engine: str


@dataclass(frozen=True, slots=True)
class Install:
    """The order at hand, and how far it came. `chosen` is known once everything is verified."""

    order: Order
    phase: Phase
    attempt: int = 0
    chosen: tuple[Installed, ...] = ()
    reason: Reason | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    """All that must survive a power cut. `slots` is keyed by slot name.

    `seq` is the highest order number taken; `time_floor` the latest time that a director signed:
    the device's clock is never believed below it; `trust` the newest metadata that was seen.
    """

    seq: int = 0
    time_floor: int = 0
    trust: TrustFloors = field(default_factory=TrustFloors)
    install: Install | None = None
    pending: Order | None = None
    slots: dict[str, Installed] = field(default_factory=dict)
    previous: dict[str, Installed] = field(default_factory=dict)
    quarantined: tuple[Digest, ...] = ()

    @property
    def phase(self) -> Phase:
        """Where the install at hand stands."""
        return self.install.phase if self.install else Phase.IDLE


# --- events --------------------------------------------------------------------------------------


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
    """Every file of every new model is in the store, verified."""

    chosen: tuple[Installed, ...]


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A download broke off in a way that waiting may cure. `jitter` is in [0, 1).

    `reason` is NOT_FOUND where every source answered and none has it: a mirror may lag behind.
    """

    detail: str
    now: int
    jitter: float
    reason: Reason = Reason.DOWNLOAD_FAILED


@dataclass(frozen=True, slots=True)
class TrialPassed:
    """Every new model reproduced its golden outputs inside its limits."""


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
class TrustSeen:
    """Metadata of these versions were verified; older ones are not believed from now on."""

    floors: TrustFloors
    now: int


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The publishers took back what these slots serve. `go_back` to what was before, or stop."""

    slots: tuple[str, ...]
    go_back: tuple[str, ...]


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
    | TrialPassed
    | Activated
    | ProbationPassed
    | StepFailed
    | ServeFailed
    | TrustSeen
    | Withdrawn
    | RolledBack
    | RollbackFailed
)


# --- commands ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Serve:
    """Serve what is committed; nothing else serves yet."""

    slots: tuple[Installed, ...]


@dataclass(frozen=True, slots=True)
class Download:
    """Bring these bundles into the store, verified, after a pause."""

    order: Order
    targets: tuple[Target, ...]
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Hold each of these against its golden outputs in a trial process."""

    chosen: tuple[Installed, ...]


@dataclass(frozen=True, slots=True)
class Activate:
    """Make these serve instead of what does, without losing a request."""

    chosen: tuple[Installed, ...]


@dataclass(frozen=True, slots=True)
class Observe:
    """Watch these serve for the time of the policy."""

    chosen: tuple[Installed, ...]
    seconds: float
    max_failures: int


@dataclass(frozen=True, slots=True)
class Restore:
    """Make these serve again, and stop the slots that served nothing before."""

    slots: tuple[Installed, ...]
    stop: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settle:
    """The install is over: stop slots that are no longer wanted, collect garbage."""

    stop: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Proceed:
    """Feed `Begin` back: the step is durable, go on."""


Command: TypeAlias = Serve | Download | SelfTest | Activate | Observe | Restore | Settle | Proceed
Outcome: TypeAlias = tuple[Device, tuple[Command, ...]]
