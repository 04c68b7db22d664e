"""Groups, tags, and what a device is: the life of a device beside its installs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgefleet_contract.errors import Malformed
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.messages import render
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.reported import Event
from edgefleet_contract.topics import Channel, topic
from edgefleet_fleet import views
from edgefleet_fleet.enrolment import Denied
from edgefleet_fleet.errors import Conflict, NotFound
from edgefleet_fleet.groups import devices_of, meant
from edgefleet_fleet.quarantines import lift, quarantines
from tests.fleet.device import PI5, new_key, reported_of, request_of
from tests.fleet.stage import FLEET, ME, Outbox, Stage


def names(stage: Stage, text: str) -> list[str]:
    with stage.services.room.store.begin() as tx:
        return [device.id for device in devices_of(tx, meant(tx, text))]


def test_tags_are_set_kept_and_removed_and_mean_devices(stage: Stage) -> None:
    stage.devices("a", "b")
    tag = stage.services.groups.tag
    assert tag("a", {"site": "hall3", "line": "4"}, (), actor=ME) == {"line": "4", "site": "hall3"}
    assert tag("b", {"site": "hall4"}, (), actor=ME) == {"site": "hall4"}
    assert tag("a", {"site": "hall5"}, ["line"], actor=ME) == {"site": "hall5"}
    assert names(stage, "tag.site=hall5") == ["a"]
    assert names(stage, "tag.site=hall*") == ["a", "b"]
    assert names(stage, "tag.line=4") == []
    with pytest.raises(NotFound, match="no tag 'x'"):
        tag("a", {}, ["x"], actor=ME)
    for wrong in ({"Site": "x"}, {"site": ""}, {"site": "a\nb"}, {"site": "x" * 200}):
        with pytest.raises(Malformed):
            tag("a", wrong, (), actor=ME)
    with pytest.raises(Malformed, match="at most 64"):
        tag("a", {f"t{i}": "x" for i in range(65)}, (), actor=ME)


def test_a_tag_brings_a_device_into_the_rollout_that_means_it(stage: Stage) -> None:
    stage.devices("a", "b")
    stage.services.groups.put("hall", "tag.site=hall3", actor=ME)
    stage.services.groups.tag("a", {"site": "hall3"}, (), actor=ME)
    rollout = stage.roll_out(1, to="group:hall")
    assert stage.view(rollout)["to"] == "tag.site=hall3"
    assert (stage.desired("a"), stage.desired("b")) == ([("digits", 1)], [])
    stage.commit("a")
    stage.services.groups.delete("hall", actor=ME)  # what it meant is kept
    stage.services.groups.tag("b", {"site": "hall3"}, (), actor=ME)
    assert stage.desired("b") == [("digits", 1)]


def test_a_group_is_a_filter_with_a_name_and_is_there_once(stage: Stage) -> None:
    stage.devices("a", "b")
    groups = stage.services.groups
    groups.put("first", "id=a", about="the first", actor=ME)
    groups.put("both", "group:first or id=b", actor=ME)
    assert names(stage, "group:both") == ["a", "b"]
    with pytest.raises(Conflict):
        groups.put("first", "id=b", actor=ME)
    groups.put("first", "id=x", replace=True, actor=ME)
    assert names(stage, "group:both") == ["b"]
    with pytest.raises(Malformed, match="means itself"):
        groups.put("first", "group:both", replace=True, actor=ME)
    with pytest.raises(Conflict, match="named by both"):
        groups.delete("first", actor=ME)
    with pytest.raises(NotFound):
        groups.delete("none", actor=ME)
    with pytest.raises(Malformed, match="no group 'none'"):
        groups.put("third", "group:none", actor=ME)


def test_what_a_board_is_can_be_seen_and_asked_for(stage: Stage) -> None:
    stage.devices("a")
    able = replace(
        PI5,
        cpu="Cortex-A76",
        features=("asimd",),
        disk_bytes=32 * 2**30,
        kernel="6.6.31",
        accelerators=("xnnpack",),
    )
    stage.roll_out(1)
    order = stage.order("a")
    assert order is not None
    state = replace(reported_of("a", order, Phase.COMMITTED, ()), capabilities=able)
    stage.take("a", Channel.REPORTED, render(state))
    with stage.services.room.store.begin() as tx:
        view = views.device(tx, "a")
    found = view["inventory"]
    assert (found["cpu"], found["kernel"], found["features"]) == ("Cortex-A76", "6.6.31", ["asimd"])
    assert found["hardware_class"] == "rpi5"  # by the board's name: it says none itself
    wanted = "cpu=Cortex-A76 and disk_mib>=32768 and kernel>=6.6 and accelerator=xnnpack"
    assert names(stage, f"{wanted} and hardware_class=rpi5 and cpus=4") == ["a"]


def test_events_come_in_pages_and_the_newest_are_kept(stage: Stage) -> None:
    stage.devices("a")
    stage.services.room.config = replace(stage.services.room.config, events_keep=7)
    stage.roll_out(1)
    order = stage.order("a")
    assert order is not None
    for _ in range(10):
        stage.say("a", order, Phase.DOWNLOADING)
    seen, before = [], None
    with stage.services.room.store.begin() as tx:
        while rows := tx.history.page("a", limit=3, before=before):
            seen += [entry.told.seq for entry in rows if isinstance(entry.told, Event)]
            before = rows[-1].number
    assert seen == [10, 9, 8, 7, 6, 5, 4]


def test_a_quarantine_is_listed_and_lifted_for_one_device(stage: Stage) -> None:
    stage.devices("a", "b")
    stage.roll_out(1, to="id=a|b", waves=(100,), max_failures=5)
    orders = {name: stage.order(name) for name in "ab"}
    for name, order in orders.items():
        assert order is not None
        failed = reported_of(name, order, Phase.FAILED, (), Reason.GOLDEN_MISMATCH)
        digest = order.targets[0].bundle_sha256
        stage.take(name, Channel.REPORTED, render(replace(failed, quarantined=(digest,))))
    services = stage.services
    with services.room.store.begin() as tx:
        (found,) = quarantines(tx, meant(tx, "all"))
    assert (found["name"], found["devices"]) == ("digits-1", ["a", "b"])
    assert found["hardware_classes"] == {"rpi5": 2}
    with pytest.raises(Conflict, match="not quarantined"):
        lift(services.room, services.deployments, "a", "digits-2", actor=ME)
    made = lift(services.room, services.deployments, "a", "digits-1", actor=ME)
    order = stage.order("a")
    assert order is not None
    assert (order.rollout, order.policy.retry_quarantined) == (made, True)
    assert stage.order("b") != order
    assert stage.view(made)["to"] == "id=a"


def test_a_decommissioned_device_is_gone_and_its_key_and_its_number_are_not_used_again(
    stage: Stage,
) -> None:
    services, link = stage.services, stage.services.room.link
    assert isinstance(link, Outbox)
    claim = services.enrolment.make_claim(uses=3, hours=1, actor=ME)[1].render()
    key = new_key()
    seal_key = PrivateKey.generate_ed25519().public.id  # 64 hex digits
    services.enrolment.enrol(request_of(claim, "a", key, seal_key=seal_key), address="")
    stage.roll_out(1)
    stage.commit("a")
    services.groups.tag("a", {"site": "x"}, (), actor=ME)
    before = stage.order("a")
    assert before is not None
    services.enrolment.decommission("a", actor=ME)
    for channel in (Channel.DESIRED, Channel.REPORTED, Channel.ONLINE, Channel.ENROL_RESPONSE):
        assert link.retained[topic(FLEET, "a", channel)] == b""
    with services.room.store.begin() as tx:
        found = tx.devices.get("a")
        assert found is not None
        assert (found.is_forgotten, found.seal_key, found.tags) == (True, "", {})
        assert found.last_seq == before.seq
        assert tx.orders.newest("a") is None
        assert tx.history.events("a")  # what happened stays the record
    with pytest.raises(Denied, match="key was revoked"):
        services.enrolment.enrol(request_of(claim, "a", key), address="")
    services.enrolment.enrol(request_of(claim, "a", new_key()), address="")
    after = stage.order("a")
    assert after is not None
    assert after.seq > before.seq
    with pytest.raises(NotFound):
        services.enrolment.decommission("x", actor=ME)
