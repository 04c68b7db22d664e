"""Rollouts as the shell carries them out: real store, real signatures, scripted reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.messages import render
from edgefleet_contract.order_policy import Policy
from edgefleet_contract.orders import Order
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.topics import Channel
from edgefleet_fleet.errors import Conflict, NotFound
from edgefleet_fleet.rollout_verbs import Verb
from edgefleet_fleet.wishes import Wish
from tests.contract.makers import write_bundle
from tests.fleet.device import event_of, running
from tests.fleet.stage import ME, Clock, Outbox, Stage, receive


def test_every_device_gets_a_signed_order_and_the_rollout_completes(
    stage: Stage, clock: Clock
) -> None:
    stage.devices("a", "b")
    rollout = stage.roll_out(1, policy=Policy(probation_s=9))
    order = stage.order("a")
    assert order is not None
    assert (order.fleet, order.device, order.seq, order.rollout) == ("demo", "a", 1, rollout)
    assert order.sources == ("http://fleet.example:8080/blobs",)
    assert order.expires - clock.now == 7 * 24 * 3600
    assert order.policy.probation_s == 9
    assert order.targets[0].max_bytes > 0
    stage.commit("a")
    stage.commit("b")
    assert stage.state(rollout) == "completed"
    assert stage.view(rollout)["ended_at"] == clock.now


def test_a_failure_is_counted_by_reason_and_the_device_is_told_to_stay(stage: Stage) -> None:
    stage.devices("a", "b", "c")
    stage.roll_out(1)
    for name in "abc":
        stage.commit(name)
    rollout = stage.roll_out(2)
    for name in "abc":
        stage.fail(name)
    view = stage.view(rollout)
    assert (view["state"], view["cause"]) == ("paused", "gate")
    assert view["by_reason"] == {"golden_mismatch": 3}
    assert all("golden" in device["reason_text"] for device in view["devices"])
    order = stage.order("a")
    assert order is not None
    assert (order.seq, stage.desired("a"), order.allow_downgrade) == (3, [("digits", 1)], True)
    stage.commit("a")  # the answer to the order to stay is no success of version 2
    assert stage.view(rollout)["counts"]["good"] == 0


def test_the_canary_goes_first(stage: Stage) -> None:
    stage.devices("a", "b", "c")
    rollout = stage.roll_out(1, canaries=("b",))
    assert [stage.desired(name) for name in "abc"] == [[], [("digits", 1)], []]
    stage.commit("b")
    assert [stage.desired(name) for name in "abc"] == [[("digits", 1)]] * 3
    assert stage.view(rollout)["wave_count"] == 2


def test_a_bad_canary_keeps_the_others_out_of_it_until_a_person_resumes(stage: Stage) -> None:
    stage.devices("a", "b")
    rollout = stage.roll_out(1, canaries=("b",))
    stage.fail("b", Reason.LATENCY_EXCEEDED)
    assert (stage.state(rollout), stage.desired("a")) == ("paused", [])
    stage.services.deployments.steer(rollout, Verb.RESUME, actor=ME)
    assert (stage.state(rollout), stage.desired("a")) == ("running", [("digits", 1)])
    stage.commit("a")
    assert stage.state(rollout) == "completed"


def test_a_number_is_never_used_twice(stage: Stage) -> None:
    stage.devices("a")
    seqs = []
    for version in range(1, 5):
        stage.roll_out(version)
        order = stage.order("a")
        assert order is not None
        seqs.append(order.seq)
    assert seqs == [1, 2, 3, 4]
    stage.services.enrolment.forget("a", actor=ME)
    assert stage.order("a") is None
    stage.devices("a")
    order = stage.order("a")
    assert order is not None
    assert (order.seq, stage.desired("a")) == (5, [("digits", 4)])


def test_a_newer_rollout_replaces_an_older_one_at_once(stage: Stage) -> None:
    stage.devices("a", "b")
    old = stage.roll_out(1)
    stage.commit("a")
    new = stage.roll_out(2)
    assert stage.state(old) == "superseded"
    assert stage.desired("b") == [("digits", 2)]
    stage.commit("a")
    stage.commit("b")
    assert stage.state(new) == "completed"
    assert stage.view(old)["counts"]["withdrawn"] == 1


def test_a_newer_rollout_for_others_leaves_the_older_one_to_its_devices(stage: Stage) -> None:
    stage.devices("a", "b")
    old = stage.roll_out(1)
    new = stage.roll_out(2, to="id=b")
    assert [stage.desired(name) for name in "ab"] == [[("digits", 1)], [("digits", 2)]]
    stage.commit("a")
    stage.commit("b")
    assert (stage.state(old), stage.state(new)) == ("completed", "completed")


def test_abort_takes_the_order_back_where_it_was_not_followed_yet(stage: Stage) -> None:
    stage.devices("a", "b")
    stage.roll_out(1)
    stage.commit("a")
    stage.commit("b")
    rollout = stage.roll_out(2)
    stage.commit("a")
    stage.services.deployments.steer(rollout, Verb.ABORT, actor=ME)
    assert [stage.desired(name) for name in "ab"] == [[("digits", 2)], [("digits", 1)]]


def test_what_cannot_be_done_in_a_state_is_a_conflict(stage: Stage) -> None:
    stage.devices("a")
    rollout = stage.roll_out(1)
    with pytest.raises(Conflict, match="not possible while running"):
        stage.services.deployments.steer(rollout, Verb.RESUME, actor=ME)
    with pytest.raises(NotFound):
        stage.services.deployments.steer("nothing", Verb.PAUSE, actor=ME)


def test_a_device_that_joins_late_gets_what_the_fleet_runs(stage: Stage) -> None:
    stage.devices("a")
    rollout = stage.roll_out(1)
    stage.commit("a")
    stage.devices("late")
    assert stage.desired("late") == [("digits", 1)]
    stage.commit("late")
    assert stage.view(rollout)["counts"]["good"] == 2


def test_a_late_device_whose_wave_is_not_open_gets_the_version_before(stage: Stage) -> None:
    stage.devices("a")
    stage.roll_out(1)
    stage.commit("a")
    stage.roll_out(2, canaries=("a",))
    stage.devices("late")
    assert stage.desired("late") == [("digits", 1)]
    stage.commit("late")
    stage.commit("a")
    assert stage.desired("late") == [("digits", 2)]


def test_two_models_in_two_slots_do_not_disturb_each_other(stage: Stage) -> None:
    stage.devices("a")
    first = stage.roll_out(1, model="digits")
    second = stage.roll_out(1, model="sounds")
    assert stage.desired("a") == [("digits", 1), ("sounds", 1)]
    stage.commit("a")
    assert (stage.state(first), stage.state(second)) == ("completed", "completed")


def test_the_same_again_is_done_without_a_new_order(stage: Stage) -> None:
    stage.devices("a")
    wish = stage.bundle(1)
    stage.services.deployments.create(wish, actor=ME)
    stage.commit("a")
    again = stage.services.deployments.create(wish, actor=ME)
    order = stage.order("a")
    assert order is not None
    assert (order.seq, stage.state(again)) == (1, "completed")


def test_a_report_that_comes_twice_counts_once(stage: Stage) -> None:
    stage.devices("a", "b")
    rollout = stage.roll_out(1)
    order = stage.order("a")
    assert order is not None
    event = render(event_of("a", order, Phase.COMMITTED))
    for _ in range(3):
        stage.take("a", Channel.EVENT, event)
    assert stage.view(rollout)["counts"]["good"] == 1
    with stage.services.room.store.begin() as tx:
        assert len(tx.history.events("a")) == 1


def test_an_end_that_only_the_state_tells_is_taken_too(stage: Stage) -> None:
    stage.devices("a")
    rollout = stage.roll_out(1)
    order = stage.order("a")
    assert order is not None
    stage.models["a"] = tuple(running(target) for target in order.targets)
    stage.report("a", order, Phase.IDLE)
    assert stage.state(rollout) == "completed"


def test_superseded_by_a_newer_order_is_no_failure(stage: Stage) -> None:
    stage.devices("a")
    rollout = stage.roll_out(1)
    order = stage.order("a")
    assert order is not None
    stage.say("a", order, Phase.REJECTED, Reason.SUPERSEDED)
    assert stage.state(rollout) == "running"


def test_a_device_that_is_ahead_of_a_restored_store_gets_its_level_again(stage: Stage) -> None:
    stage.devices("a")
    stage.roll_out(1)
    order = stage.order("a")
    assert order is not None
    ahead = Order(order.fleet, "a", 40, 1, 2, "lost", ())
    stage.report("a", ahead, Phase.COMMITTED)
    assert stage.desired("a") == [("digits", 1)]
    order = stage.order("a")
    assert order is not None
    assert order.seq == 41


def test_orders_that_run_out_are_signed_again(stage: Stage, clock: Clock) -> None:
    stage.devices("a")
    rollout = stage.roll_out(1)
    clock.now += 6 * 24 * 3600
    stage.services.deployments.upkeep.renew()
    order = stage.order("a")
    assert order is not None
    assert (order.seq, order.expires) == (2, clock.now + 7 * 24 * 3600)
    stage.commit("a")
    assert stage.state(rollout) == "completed"


def test_after_a_start_every_order_is_published_again(stage: Stage) -> None:
    stage.devices("a", "b")
    stage.roll_out(1)
    outbox = Outbox()
    stage.services.room.link = outbox
    stage.services.deployments.upkeep.publish_all()
    assert sorted(outbox.retained) == [
        "edgefleet/v1/demo/a/desired",
        "edgefleet/v1/demo/b/desired",
    ]


def test_a_device_that_is_forgotten_does_not_hold_a_rollout_up(stage: Stage) -> None:
    stage.devices("a", "b")
    rollout = stage.roll_out(1)
    stage.commit("a")
    stage.services.enrolment.forget("b", actor=ME)
    assert stage.state(rollout) == "completed"


def test_a_filter_means_only_what_it_says(stage: Stage) -> None:
    stage.devices("a", "b")
    rollout = stage.roll_out(1, to="id=a,hw=pi5")
    assert [stage.desired(name) for name in "ab"] == [[("digits", 1)], []]
    assert stage.view(rollout)["counts"]["total"] == 1


def test_another_slot_is_another_name_for_the_model(stage: Stage) -> None:
    stage.devices("a")
    stage.roll_out(1, slot="shadow")
    assert stage.desired("a") == [("shadow", 1)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"canaries": ("nobody",)},
        {"slot": "Bad Slot"},
        {"max_failures": 0},
    ],
)
def test_a_wish_that_cannot_be_is_refused_and_leaves_nothing(
    stage: Stage, wrong: dict[str, object]
) -> None:
    stage.devices("a")
    with pytest.raises((OperatorError, Malformed)):
        stage.roll_out(1, **wrong)
    assert stage.desired("a") == []
    with stage.services.room.store.begin() as tx:
        assert tx.rollouts.list() == ()


def test_an_incomplete_or_unknown_bundle_is_not_rolled_out(
    stage: Stage, publisher: PrivateKey, tmp_path: Path
) -> None:
    received = receive(stage.services, write_bundle(tmp_path / "half", publisher))
    wish = Wish(received.bundle.digest, received.bundle.signature_sha256)
    with pytest.raises(OperatorError, match="not complete"):
        stage.services.deployments.create(wish, actor=ME)
    with pytest.raises(NotFound):
        stage.services.deployments.create(Wish("0" * 64, "0" * 64), actor=ME)


def test_a_machine_survives_a_restart_in_any_wave(stage: Stage) -> None:
    stage.devices("a", "b", "c")
    rollout = stage.roll_out(1, canaries=("a",), max_failures=2)
    stage.commit("a")
    with stage.services.room.store.begin() as tx:
        row = tx.rollouts.get(rollout)
        assert row is not None
        machine = tx.rollouts.machine(rollout)
    counted = sum(machine.tally.cells.values())
    assert (machine.wave, machine.plan.gate.max_failures, counted) == (1, 2, 3)
    assert Digest(row.target.bundle_sha256) == row.target.bundle_sha256
