from __future__ import annotations

from dataclasses import replace

import pytest

from edgefleet_agent.policy import Accept, Known, Refuse, judge
from edgefleet_contract.messages import MAX_ORDER_LIFE_S, Order
from edgefleet_contract.order_policy import Policy
from edgefleet_contract.reasons import Reason
from tests.agent.test_install import committed, target
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
