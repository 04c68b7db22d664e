"""The install machine played by hand: events in turn, and what comes of them."""

from __future__ import annotations

from edgefleet_agent import install
from edgefleet_agent.device import Device, Installed
from edgefleet_agent.install_events import (
    Activated,
    Begin,
    CanaryPassed,
    Downloaded,
    Event,
    OrderTaken,
    ProbationPassed,
    ShadowPassed,
    Staged,
    TrialPassed,
    WindowOpened,
)
from edgefleet_contract.bundle import Digest
from edgefleet_contract.order_policy import Canary, Policy, Shadow, Window
from edgefleet_contract.orders import Order, Target
from tests.contract.makers import order_of


def target(version: int, slot: str = "digits") -> Target:
    return Target(slot, slot, version, Digest(f"{version:064x}"), Digest("b" * 64), 100)


def chosen(version: int, slot: str = "digits") -> Installed:
    return Installed(target(version, slot), "onnx-int8", "onnxruntime")


def play(device: Device, *events: Event) -> tuple[Device, list[object]]:
    commands: list[object] = []
    for event in events:
        device, more = install.step(device, event)
        commands += more
    return device, commands


def happy(order: Order, *items: Installed) -> tuple[Event, ...]:
    return (
        OrderTaken(order),
        Begin(),
        Downloaded(items),
        Staged(),
        Begin(),
        TrialPassed(),
        Activated(),
        ProbationPassed(),
    )


def committed(version: int = 1) -> Device:
    return play(Device(), *happy(order_of(target(version), seq=version), chosen(version)))[0]


def careful(version: int, seq: int) -> Order:
    """An order that goes by way of every phase."""
    policy = Policy(windows=(Window("02:00", 60),), shadow=Shadow(10), canary=Canary(20))
    return order_of(target(version), seq=seq, policy=policy)


def every_step(order: Order, *items: Installed) -> tuple[Event, ...]:
    plain = happy(order, *items)
    careful_ones = (WindowOpened(), TrialPassed(), ShadowPassed(), CanaryPassed())
    return (*plain[:5], *careful_ones, *plain[6:])
