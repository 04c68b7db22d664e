"""The install machine while it fetches: pauses, budgets, what cannot be had, what spoils."""

from __future__ import annotations

from edgefleet_agent import transitions
from edgefleet_agent.device import Device, Spent
from edgefleet_agent.install_commands import Download
from edgefleet_agent.install_events import (
    Begin,
    Downloaded,
    Held,
    Interrupted,
    OrderTaken,
    StepFailed,
)
from edgefleet_contract.order_policy import Policy
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.playbook import chosen, committed, happy, play, target
from tests.contract.makers import order_of


def test_a_bad_transfer_is_not_held_against_the_bundle() -> None:
    device, _ = play(
        committed(1),
        *happy(order_of(target(2), seq=2), chosen(2))[:2],
        StepFailed(Reason.DIGEST_MISMATCH),
    )
    assert device.phase is Phase.FAILED
    assert device.quarantined == ()


def test_a_disk_that_spoils_what_it_is_given_ends_the_install() -> None:
    """Each download succeeds, so that only what is counted apart ends it."""
    rotten = Interrupted("it changed", 1_000, 0.5, reason=Reason.STORAGE_FAILED)
    device, _ = play(Device(), OrderTaken(order_of(target(1), seq=1)), Begin())
    for _ in range(transitions.MAX_SPOILT):
        device, commands = play(device, Downloaded((chosen(1),)), rotten)
        assert isinstance(commands[-1], Download)
    device, _ = play(device, Downloaded((chosen(1),)), rotten)
    assert device.install is not None
    assert (device.phase, device.install.reason) == (Phase.FAILED, Reason.STORAGE_FAILED)
    assert device.quarantined == ()


def test_a_file_that_rotted_before_its_trial_is_fetched_again() -> None:
    device, commands = play(
        committed(1),
        *happy(order_of(target(2), seq=2), chosen(2))[:3],
        Interrupted("digits has changed on the disk", now=1_000, jitter=0.0),
    )
    assert device.phase is Phase.DOWNLOADING
    assert isinstance(commands[-1], Download)


def test_waiting_for_a_budget_is_not_counted_as_a_failure_but_its_bytes_are() -> None:
    order = order_of(target(1), policy=Policy(max_bytes_per_day=100))
    device, _ = play(Device(), *happy(order)[:2])
    for _ in range(transitions.MAX_DOWNLOADS + 5):
        device, commands = play(device, Held("budget", now=90_000, wait_s=60.0, transferred=2))
        assert device.phase is Phase.DOWNLOADING
    assert device.spent == Spent(1, 70)
    assert device.spent.left(90_000, 100) == 30
    assert device.spent.left(180_000, 100) == 100
    assert isinstance(commands[-1], Download)
    assert (commands[-1].delay_s, commands[-1].spent) == (60.0, Spent(1, 70))
    device, _ = play(device, Held("budget", now=order.expires + 1, wait_s=60.0))
    assert device.install is not None
    assert device.install.reason is Reason.ORDER_EXPIRED


def test_a_pause_that_a_server_asks_for_is_kept_within_an_hour() -> None:
    device, _ = play(Device(), *happy(order_of(target(1)))[:2])
    _, commands = play(device, Interrupted("busy", now=1, jitter=0.0, wait_s=120.0))
    assert isinstance(commands[0], Download)
    assert commands[0].delay_s == 120.0
    _, commands = play(device, Interrupted("busy", now=1, jitter=0.0, wait_s=1e9))
    assert isinstance(commands[0], Download)
    assert commands[0].delay_s == transitions.MAX_WAIT_S


def test_a_broken_download_is_taken_up_again_later_and_later() -> None:
    device, _ = play(Device(), *happy(order_of(target(1)), chosen(1))[:2])
    delays = []
    for _ in range(transitions.MAX_DOWNLOADS):
        device, commands = play(device, Interrupted("cut", now=1_000, jitter=0.5))
        (again,) = commands
        assert isinstance(again, Download)
        delays.append(again.delay_s)
    assert delays == sorted(delays)
    assert delays[-1] <= transitions.MAX_BACKOFF_S
    device, _ = play(device, Interrupted("cut", now=1_000, jitter=0.5))
    assert device.install is not None
    assert device.install.reason is Reason.DOWNLOAD_FAILED


def test_a_file_that_no_source_has_is_asked_for_a_few_times_and_then_not_found() -> None:
    device, _ = play(Device(), *happy(order_of(target(1)), chosen(1))[:2])
    gone = Interrupted("404", now=1_000, jitter=0.5, reason=Reason.NOT_FOUND)
    for _ in range(transitions.MAX_MISSING):
        device, commands = play(device, gone)
        assert isinstance(commands[-1], Download)
    device, _ = play(device, gone)
    assert device.install is not None
    assert (device.phase, device.install.reason) == (Phase.FAILED, Reason.NOT_FOUND)


def test_a_download_ends_with_its_order() -> None:
    order = order_of(target(1))
    device, _ = play(
        Device(), *happy(order)[:2], Interrupted("cut", now=order.expires + 1, jitter=0.0)
    )
    assert device.install is not None
    assert device.install.reason is Reason.ORDER_EXPIRED
