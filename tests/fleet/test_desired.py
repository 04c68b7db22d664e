"""What one device should run."""

from __future__ import annotations

import pytest

from edgefleet_contract.bundle import Digest
from edgefleet_contract.order_policy import Policy
from edgefleet_contract.orders import Target
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.reported import RunningModel
from edgefleet_fleet.desired import SlotAsk, level
from edgefleet_fleet.endings import ending_of
from edgefleet_fleet.roster import Outcome


def target(version: int, slot: str = "digits") -> Target:
    digest = Digest(f"{version:02x}" * 32)
    return Target(slot, "digits", version, digest, Digest("cc" * 32), 100)


def running(version: int, slot: str = "digits") -> RunningModel:
    return RunningModel(slot, "digits", version, target(version).bundle_sha256, "v", "onnxruntime")


KNOWN = {target(version).bundle_sha256: target(version) for version in range(1, 6)}


def ask(version: int, outcome: Outcome, slot: str = "digits", **more: object) -> SlotAsk:
    return SlotAsk(f"r{version}", target(version, slot), outcome, **more)  # type: ignore[arg-type]


def test_the_newest_rollout_that_asks_decides() -> None:
    found = level((ask(1, Outcome.GOOD), ask(2, Outcome.ASKED)), (running(1),), KNOWN)
    assert found.targets == (target(2),)
    assert (found.rollout, found.asks) == ("r2", ("r2",))
    assert not found.allow_downgrade


def test_after_a_failure_the_slot_falls_back_to_what_runs_and_may_go_back() -> None:
    found = level((ask(1, Outcome.GOOD), ask(2, Outcome.BAD)), (running(1),), KNOWN)
    assert found.targets == (target(1),)
    assert found.asks == ()
    assert found.allow_downgrade


def test_after_a_failure_that_is_reported_as_running_an_older_rollout_decides() -> None:
    found = level((ask(1, Outcome.GOOD), ask(2, Outcome.BAD)), (running(2),), KNOWN)
    assert found.targets == (target(1),)


def test_a_first_install_that_failed_leaves_the_slot_empty() -> None:
    assert level((ask(1, Outcome.BAD),), (), KNOWN).targets == ()


def test_other_slots_stay_what_they_are() -> None:
    history = (ask(1, Outcome.GOOD, "left"), ask(2, Outcome.ASKED, "right"))
    found = level(history, (running(1, "left"),), KNOWN)
    assert found.targets == (target(1, "left"), target(2, "right"))
    assert found.asks == ("r2",)


def test_a_slot_that_no_rollout_knows_keeps_what_runs_there() -> None:
    found = level((ask(2, Outcome.ASKED, "right"),), (running(1, "left"),), KNOWN)
    assert found.targets == (target(1, "left"), target(2, "right"))


def test_permissions_and_policy_are_those_of_the_rollouts_that_ask() -> None:
    policy = Policy(probation_s=30)
    history = (
        ask(1, Outcome.GOOD, allow_downgrade=True),
        ask(2, Outcome.ASKED, policy=policy),
    )
    found = level(history, (), KNOWN)
    assert (found.policy, found.allow_downgrade) == (policy, False)


@pytest.mark.parametrize(
    ("phase", "reason", "outcome"),
    [
        (Phase.COMMITTED, None, Outcome.GOOD),
        (Phase.FAILED, Reason.GOLDEN_MISMATCH, Outcome.BAD),
        (Phase.REJECTED, Reason.UNKNOWN_KEY, Outcome.BAD),
        (Phase.FAILED, None, Outcome.BAD),
        (Phase.ROLLED_BACK, Reason.PROBATION_FAILED, Outcome.BAD),
        (Phase.ROLLED_BACK, Reason.LINK_LOST, Outcome.BAD),
        (Phase.ROLLBACK_FAILED, None, Outcome.BAD),
        (Phase.FAILED, Reason.DOWNLOAD_FAILED, Outcome.UNDELIVERED),
        (Phase.REJECTED, Reason.POLICY_UNSUPPORTED, Outcome.REFUSED),
        (Phase.REJECTED, Reason.SUPERSEDED, None),
        (Phase.REJECTED, Reason.STALE_ORDER, None),
        (Phase.DOWNLOADING, None, None),
        (Phase.IDLE, None, None),
    ],
)
def test_only_an_end_is_an_outcome(
    phase: Phase, reason: Reason | None, outcome: Outcome | None
) -> None:
    assert ending_of(phase, reason) is outcome
