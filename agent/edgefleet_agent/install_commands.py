"""What the install machine asks for: commands out. The performer carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from edgefleet_agent.device import NOTHING_SPENT, Device, Installed, Spent
from edgefleet_contract.order_policy import Canary, Policy, Shadow
from edgefleet_contract.orders import Order, Target


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
