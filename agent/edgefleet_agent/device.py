"""The vocabulary of the install machine: the device's durable state, events in, commands out.

`Device` is what the journal holds, and all that must survive a power cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from edgefleet_contract.bundle import Digest
from edgefleet_contract.order_policy import Canary, Policy, Shadow
from edgefleet_contract.orders import Order, Target
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import TrustFloors

DAY_S: Final = 24 * 3600

# --- state ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Installed:
    """A model on this device: what the order named, and what was chosen for it here, and why."""

    target: Target
    variant: str
    engine: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Install:
    """The order at hand, and how far it came. `chosen` is known once everything is verified.

    `attempt` counts tries of the step at hand, `spoilt` how often files had changed on the disk.
    """

    order: Order
    phase: Phase
    attempt: int = 0
    chosen: tuple[Installed, ...] = ()
    reason: Reason | None = None
    detail: str = ""
    spoilt: int = 0


@dataclass(frozen=True, slots=True)
class Spent:
    """What was fetched in the day at hand: a day is counted from 1970 in UTC."""

    day: int = 0
    bytes: int = 0

    def add(self, now: int, size: int) -> Spent:
        """With `size` more bytes, at a time in seconds since 1970."""
        day = now // DAY_S
        return Spent(day, size + (self.bytes if day == self.day else 0))

    def left(self, now: int, budget: int) -> int:
        """How many bytes of a daily budget are left."""
        return max(0, budget - (self.bytes if now // DAY_S == self.day else 0))


NOTHING_SPENT: Final = Spent()


@dataclass(frozen=True, slots=True)
class Device:
    """All that must survive a power cut. What is keyed by slot name:

    `slots` is committed and serves; `previous` is what was committed before it; `fallback` is what
    is served when neither does: the first release that was ever committed, or the one that an order
    put in its place. None of these files are collected.

    `seq` is the highest order number taken; `time_floor` the latest time that a director signed:
    the device's clock is never believed below it; `trust` the newest metadata that was seen.
    `pending` is an order that waits for the end of the install at hand.
    `committed` remembers each model's version that was committed last, in whatever slot: an emptied
    slot, or another name for it, is no way back to an older one.
    """

    seq: int = 0
    time_floor: int = 0
    trust: TrustFloors = field(default_factory=TrustFloors)
    install: Install | None = None
    pending: Order | None = None
    slots: dict[str, Installed] = field(default_factory=dict)
    previous: dict[str, Installed] = field(default_factory=dict)
    fallback: dict[str, Installed] = field(default_factory=dict)
    spent: Spent = NOTHING_SPENT
    quarantined: tuple[Digest, ...] = ()
    committed: dict[str, int] = field(default_factory=dict)

    @property
    def phase(self) -> Phase:
        """Where the install at hand stands."""
        return self.install.phase if self.install else Phase.IDLE

    @property
    def kept(self) -> tuple[Installed, ...]:
        """Every model whose files must stay: what serves, what may be gone back to, what comes."""
        coming = self.install.chosen if self.install and not self.phase.is_final else ()
        return (*self.slots.values(), *self.previous.values(), *self.fallback.values(), *coming)


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


# --- commands ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Serve:
    """Serve what is committed; nothing else serves yet."""

    slots: tuple[Installed, ...]


@dataclass(frozen=True, slots=True)
class Download:
    """Bring these bundles into the store, verified, after a pause, within the day's budget."""

    order: Order
    targets: tuple[Target, ...]
    spent: Spent = NOTHING_SPENT
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Read every file of these again, and hold it against its digest."""

    chosen: tuple[Installed, ...]


@dataclass(frozen=True, slots=True)
class AwaitWindow:
    """Wait for a window and for the conditions of the order's policy; not beyond its end."""

    order: Order


@dataclass(frozen=True, slots=True)
class RunShadow:
    """Let each of these answer a sample of the live requests, unseen."""

    chosen: tuple[Installed, ...]
    policy: Shadow


@dataclass(frozen=True, slots=True)
class RunCanary:
    """Let each of these answer a share of the live requests, beside what serves."""

    chosen: tuple[Installed, ...]
    policy: Canary


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
    """Watch these serve for as long as the policy asks."""

    chosen: tuple[Installed, ...]
    policy: Policy


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


@dataclass(frozen=True, slots=True)
class Reconsider:
    """Judge an order that waited again: what it waited for may have changed what it may do."""

    order: Order


Command: TypeAlias = (
    Serve
    | Download
    | Stage
    | AwaitWindow
    | SelfTest
    | RunShadow
    | RunCanary
    | Activate
    | Observe
    | Restore
    | Settle
    | Proceed
    | Reconsider
)
Outcome: TypeAlias = tuple[Device, tuple[Command, ...]]
