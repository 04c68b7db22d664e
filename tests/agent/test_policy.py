from __future__ import annotations

from dataclasses import replace

import pytest

from edgefleet_agent.device import Device
from edgefleet_agent.install_events import Begin, OrderTaken, ServeFailed, StepFailed
from edgefleet_agent.policy import Accept, Known, Refuse, judge, judge_targets
from edgefleet_contract.order_policy import Policy
from edgefleet_contract.orders import MAX_ORDER_LIFE_S, Order
from edgefleet_contract.reasons import Reason
from tests.agent.playbook import chosen, committed, happy, play, target
from tests.contract.makers import ISSUED, order_of

NOW = ISSUED + 1_000
DEVICE = replace(committed(5), seq=5, quarantined=(target(9).bundle_sha256,))


def verdict(order: Order, clock: int = NOW) -> Accept | Known | Refuse:
    return judge(order, DEVICE, fleet="demo", name="pi-1", clock=clock)


def test_a_newer_order_for_this_device_is_taken() -> None:
    assert verdict(order_of(target(6), seq=6)) == Accept()


def test_an_order_that_was_taken_is_known() -> None:
    assert verdict(order_of(target(5), seq=5)) == Known()


@pytest.mark.parametrize(
    ("order", "reason", "spent"),
    [
        (order_of(target(6), seq=6, device="pi-2"), Reason.WRONG_DEVICE, False),
        (order_of(target(6), seq=6, fleet="other"), Reason.WRONG_DEVICE, False),
        (order_of(target(6), seq=4), Reason.STALE_ORDER, False),
        (order_of(target(6), seq=6, expires=NOW - 1), Reason.ORDER_EXPIRED, False),
        (
            order_of(target(6), seq=6, expires=ISSUED + MAX_ORDER_LIFE_S + 1),
            Reason.ORDER_EXPIRED,
            False,
        ),
        (order_of(target(9), seq=6), Reason.QUARANTINED, True),
        (order_of(target(4), seq=6), Reason.DOWNGRADE, True),
    ],
    ids=lambda value: value.value if isinstance(value, Reason) else None,
)
def test_an_order_is_refused_for_its_reason(order: Order, reason: Reason, spent: bool) -> None:
    refused = verdict(order)
    assert isinstance(refused, Refuse)
    assert (refused.reason, refused.spent) == (reason, spent)


def test_going_back_needs_its_permission_and_no_more() -> None:
    assert verdict(order_of(target(4), seq=6, allow_downgrade=True)) == Accept()


def test_a_quarantined_bundle_is_tried_again_when_the_order_says_so() -> None:
    order = order_of(target(9), seq=6, policy=Policy(retry_quarantined=True))
    assert verdict(order) == Accept()


def test_a_clock_at_1970_does_not_bring_an_expired_order_back() -> None:
    device = replace(DEVICE, time_floor=ISSUED + 50_000)
    order = order_of(target(6), seq=6, expires=ISSUED + 40_000)
    refused = judge(order, device, fleet="demo", name="pi-1", clock=0)
    assert isinstance(refused, Refuse)
    assert refused.reason is Reason.ORDER_EXPIRED


def emptied(version: int) -> Device:
    """Committed, then ordered to run nothing."""
    return play(committed(version), OrderTaken(order_of(seq=version + 1)), Begin())[0]


@pytest.mark.parametrize("slot", ["digits", "renamed"])
def test_an_emptied_or_renamed_slot_is_no_way_back_to_an_older_version(slot: str) -> None:
    older = replace(target(4), slot=slot)
    for device in (emptied(5), committed(5)):
        refused = judge_targets(order_of(older, seq=9), device)
        assert isinstance(refused, Refuse)
        assert refused.reason is Reason.DOWNGRADE
        assert judge_targets(order_of(replace(target(5), slot=slot), seq=9), device) == Accept()
        assert judge_targets(order_of(older, seq=9, allow_downgrade=True), device) == Accept()


def test_the_version_that_is_remembered_falls_by_a_permitted_commit_alone() -> None:
    device = emptied(5)
    back = order_of(target(4), seq=9, allow_downgrade=True)
    failed = StepFailed(Reason.GOLDEN_MISMATCH, "", "digits")
    device, _ = play(device, *happy(back, chosen(4))[:5], failed)
    assert device.committed == {"digits": 5}
    device, _ = play(emptied(5), *happy(back, chosen(4)))
    assert device.committed == {"digits": 4}
    device, _ = play(device, *happy(order_of(target(6), seq=10), chosen(6)))
    assert device.committed == {"digits": 6}


def test_going_back_by_itself_is_not_asked_for_permission() -> None:
    device, _ = play(committed(1), *happy(order_of(target(2), seq=2), chosen(2)))
    device, _ = play(device, ServeFailed("digits"))
    assert device.slots["digits"] == chosen(1)
    assert device.committed == {"digits": 2}
    assert judge_targets(order_of(target(1), seq=3), device) == Accept()


def test_one_order_cannot_use_up_all_numbers() -> None:
    """A stolen director key would shut the device to every honest order, for good."""
    for seq in (6, 2**32, 2**52):
        assert verdict(order_of(target(6), seq=seq)) == Accept()
    for seq in (2**52 + 1, 2**53 - 1):
        refused = verdict(order_of(target(6), seq=seq))
        assert isinstance(refused, Refuse)
        assert (refused.reason, refused.spent) == (Reason.MALFORMED, False)
    high = replace(DEVICE, seq=2**52)
    honest = order_of(target(6), seq=2**52 + 1)
    assert judge(honest, high, fleet="demo", name="pi-1", clock=NOW) == Accept()
