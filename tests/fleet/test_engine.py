"""The rollout engine in the control room: real store, real signatures, devices that answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgefleet_contract.errors import Malformed
from edgefleet_contract.messages import render
from edgefleet_contract.order_policy import Policy
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.topics import Channel
from edgefleet_fleet.api_rollouts import RolloutBody
from edgefleet_fleet.errors import Conflict, Denied, NotFound
from edgefleet_fleet.rollout_verbs import Verb
from edgefleet_fleet.services import services_of
from edgefleet_fleet.work import Actor
from tests.fleet.device import event_of, model_sample
from tests.fleet.stage import ME, Clock, Stage, wish_of

BOB = Actor("bob")


def tick(stage: Stage, clock: Clock, after: int) -> int:
    clock.now += after
    return stage.services.deployments.tick()


def asked(stage: Stage, *names: str, version: int) -> list[str]:
    return [name for name in names if ("digits", version) in stage.desired(name)]


def test_a_rollout_waits_for_a_second_person_and_then_for_its_time(
    stage: Stage, clock: Clock
) -> None:
    stage.devices("a")
    rollout = stage.roll_out(1, approve_by="any", start_at=clock.now + 600)
    assert stage.state(rollout) == "pending_approval"
    with pytest.raises(Denied, match="does not approve"):
        stage.services.deployments.steer(rollout, Verb.APPROVE, actor=ME)
    stage.services.deployments.steer(rollout, Verb.APPROVE, actor=BOB)
    assert stage.state(rollout) == "scheduled"
    stage.devices("late")
    assert tick(stage, clock, 0) == clock.now + 600
    assert asked(stage, "a", "late", version=1) == []
    tick(stage, clock, 600)
    assert asked(stage, "a", "late", version=1) == ["a", "late"]
    assert stage.view(rollout)["approved_by"] == "bob"


def test_a_draft_changes_nothing_until_it_is_started(stage: Stage) -> None:
    stage.devices("a")
    first = stage.roll_out(1)
    draft = stage.roll_out(2, draft=True)
    assert (stage.state(first), stage.state(draft)) == ("running", "draft")
    stage.services.deployments.steer(draft, Verb.START, actor=ME)
    assert (stage.state(first), stage.desired("a")) == ("superseded", [("digits", 2)])


def test_pace_and_soak_go_on_where_they_were_after_a_restart(stage: Stage, clock: Clock) -> None:
    names = [f"d{number}" for number in range(6)]
    stage.devices(*names)
    rollout = stage.roll_out(1, canaries=("d0",), pace={"per_minute": 6}, soak_s=300)
    stage.commit("d0")
    room = stage.services.room
    stage.services = services_of(
        room, stage.services.publications
    )  # what a restart leaves: the store
    tick(stage, clock, 299)
    assert asked(stage, *names, version=1) == ["d0"]
    counts = []
    for after in (1, 10, 10, 10, 10):
        tick(stage, clock, after)
        counts.append(len(asked(stage, *names, version=1)) - 1)
    assert counts == [1, 2, 3, 4, 5]
    assert stage.view(rollout)["wave_states"] == ["passed", "open"]


def test_a_canary_that_goes_silent_stops_it(stage: Stage, clock: Clock) -> None:
    stage.devices("a", "b")
    rollout = stage.roll_out(1, canaries=("a",))
    order = stage.order("a")
    assert order is not None
    stage.say("a", order, Phase.ACTIVATING)
    tick(stage, clock, 600)
    assert stage.state(rollout) == "running"
    tick(stage, clock, 600)
    view = stage.view(rollout)
    assert (view["state"], view["cause"]) == ("paused", "gate")
    assert view["why"] == "among canaries, 1 (1 silent) of 1 devices failed"
    assert view["counts"]["silent"] == 1
    stage.commit("a")
    assert stage.view(rollout)["counts"]["good"] == 1
    assert stage.desired("a") == [("digits", 1)]


def test_a_revert_is_a_signed_order_for_what_ran_before(stage: Stage) -> None:
    stage.devices("a", "b")
    stage.roll_out(1)
    stage.commit("a")
    stage.commit("b")
    rollout = stage.roll_out(2)
    stage.commit("a")
    stage.commit("b")
    assert stage.state(rollout) == "completed"
    stage.services.deployments.steer(rollout, Verb.REVERT, actor=ME)
    order = stage.order("a")
    assert order is not None
    assert (stage.desired("a"), order.allow_downgrade) == ([("digits", 1)], True)
    assert stage.state(rollout) == "aborting"
    stage.commit("a")
    stage.commit("b")
    assert stage.state(rollout) == "aborted"
    assert stage.view(rollout)["counts"]["reverted"] == 2
    with pytest.raises(Conflict):
        stage.services.deployments.steer(rollout, Verb.PROMOTE, actor=ME)


def test_what_failed_its_selftest_on_a_kind_of_board_is_not_tried_there_again(stage: Stage) -> None:
    names = ("a", "b", "c", "d")
    stage.devices(*names)
    rollout = stage.roll_out(1)
    for name in names[:3]:
        stage.fail(name)
    assert stage.view(rollout)["blocked"] == ["rpi5"]
    assert stage.desired("d") == []
    wish = wish_of(stage.bundle(2), to="all")
    found = stage.view(rollout)
    again = {"bundle": found["bundle_sha256"], "signature_sha256": found["signature_sha256"]}
    second = stage.services.deployments.create(RolloutBody(**again).wish(), actor=ME)
    assert stage.view(second)["counts"]["blocked"] == 4
    retried = RolloutBody(**again, policy={"retry_quarantined": True}).wish()
    third = stage.services.deployments.create(retried, actor=ME)
    assert stage.view(third)["counts"]["asked"] == 4
    assert wish.plan.salt == ""


def test_downloads_that_fail_are_no_failures_of_the_model(stage: Stage) -> None:
    stage.devices("a")
    rollout = stage.roll_out(1)
    stage.fail("a", Reason.NO_SPACE)
    view = stage.view(rollout)
    assert (view["state"], view["cause"], view["counts"]["undelivered"]) == ("paused", "budget", 1)


def test_requests_that_fail_stop_it_and_one_device_is_not_the_fleet(stage: Stage) -> None:
    stage.devices("a", "b")
    rollout = stage.roll_out(1, soak_s=600)
    for name in ("a", "b"):
        stage.commit(name)
    tell(stage, "a", 1000, 0)
    tell(stage, "a", 2000, 0)
    evidence = stage.view(rollout)["evidence"]["rpi5"]
    assert (evidence["requests"], evidence["failures"]) == (500, 0)
    tell(stage, "b", 0, 0)
    tell(stage, "b", 400, 300)
    view = stage.view(rollout)
    assert (view["state"], view["cause"]) == ("paused", "gate")
    assert view["why"].startswith("errors on rpi5: 0.33")


def tell(stage: Stage, name: str, requests: int, failures: int) -> None:
    sample = replace(model_sample(name), requests=requests, failures=failures)
    stage.take(name, Channel.TELEMETRY_MODEL, render(replace(sample, version=1)))


def test_a_shadow_that_disagrees_and_labels_that_do_not_confirm_stop_it(stage: Stage) -> None:
    stage.devices("a", "b")
    rollout = stage.roll_out(1, model_gates=[{"kind": "agreement", "limit": 0.9}])
    order = stage.order("a")
    assert order is not None
    event = event_of("a", order, Phase.SHADOW, None, seq=1)
    figures = {"shadow_requests": 400.0, "shadow_agreement": 0.7}
    stage.take("a", Channel.EVENT, render(replace(event, measurements=figures)))
    assert stage.view(rollout)["why"].startswith("agreement on rpi5: 0.7 ")
    second = stage.roll_out(2, model_gates=[{"kind": "accuracy", "limit": 0.9}])
    stage.services.deployments.label(second, "a", right=60, wrong=60, actor=ME)
    assert stage.view(second)["why"].startswith("accuracy on rpi5: 0.5 ")
    with pytest.raises(NotFound):
        stage.services.deployments.label(second, "nobody", right=1, wrong=0, actor=ME)


def test_how_fast_a_device_may_fetch_stands_in_its_order(stage: Stage) -> None:
    stage.devices("a")
    stage.roll_out(1, policy=Policy(max_bytes_per_s=200_000))
    order = stage.order("a")
    assert order is not None
    assert order.policy.max_bytes_per_s == 200_000
    with pytest.raises(Malformed, match="max_bytes_per_s is 5"):
        stage.roll_out(2, policy=Policy(max_bytes_per_s=5))


def test_a_dry_run_says_who_when_and_keeps_nothing(stage: Stage, clock: Clock) -> None:
    stage.devices("a", "b", "c")
    wish = wish_of(stage.bundle(1), canaries=["b"], soak_s=600, pace={"per_minute": 1})
    visits = stage.services.deployments.rehearse(wish)
    assert [visit.wave for visit in visits] == [0, 1, 1]
    assert visits[0].device == "b"
    assert [visit.at for visit in visits] == [clock.now, clock.now + 660, clock.now + 720]
    with stage.services.room.store.begin() as tx:
        assert tx.rollouts.list() == ()
    assert stage.order("b") is None


def test_a_plan_of_another_release_pauses_its_rollout_and_harms_nobody(stage: Stage) -> None:
    from edgefleet_fleet.adapters.sql.tables import rollout as table

    stage.devices("a")
    rollout = stage.roll_out(1)
    with stage.services.room.store.engine.begin() as connection:
        connection.execute(table.update().values(plan={"salt": "x", "tomorrow": 1}))
    stage.commit("a")
    view = stage.view(rollout)
    assert (view["state"], view["cause"]) == ("paused", "gate")
    assert "tomorrow" in view["why"]
