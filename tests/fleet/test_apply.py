"""A declared fleet: read strictly, planned as a table of cases, carried out against a real room."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from edgefleet_contract.errors import OperatorError
from edgefleet_fleet import apply_file, yaml_file
from edgefleet_fleet.api import create_app
from edgefleet_fleet.apply_plan import (
    Action,
    BundleNow,
    Declared,
    DeviceNow,
    Group,
    Hook,
    Plan,
    Present,
    RolloutNow,
    Wanted,
    plan,
)
from edgefleet_fleet.apply_schema import schema
from edgefleet_fleet.roles import Role
from edgefleet_fleet.services import Services
from tests.fleet import inside
from tests.fleet.stage import ME, TOKEN, Stage
from tests.fleet.web import Web, serving

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "gitops.md"
WHOLE = """
version: 1
fleet: demo
groups:
  early: {filter: group:hall3 and tag.ring=early, about: first of all}
  hall3: tag.site = hall3
tags:
  a: {site: hall3, ring: early}
  b: {site: hall3}
webhooks:
  chat: {url: https://hooks.example/x, events: [rollout.paused]}
models:
  digits:
    version: 1
    to: group:hall3
    canaries: [a]
    waves: [50, 100]
    max_failures: 1
    policy: {probation_s: 3}
    soak_s: 1
    gate: {limit: 0.1}
"""


def parse(text: str) -> Declared:
    return apply_file.parse(text, name="fleet.yaml")


def test_a_whole_file_is_read() -> None:
    found = parse(WHOLE)
    assert found.groups is not None
    assert found.groups["hall3"] == Group("tag.site=hall3")
    assert found.tags == {"a": {"site": "hall3", "ring": "early"}, "b": {"site": "hall3"}}
    assert found.webhooks == {"chat": Hook("https://hooks.example/x", ("rollout.paused",))}
    assert found.rollouts is not None
    (wanted,) = found.rollouts
    assert (wanted.model, wanted.version, wanted.slot) == ("digits", 1, "digits")
    assert wanted.words["policy"] == {"probation_s": 3}
    assert parse("version: 1") == Declared()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "fleet.yaml:1:1: version: is to be 1"),
        ("version: 2", "fleet.yaml:1:1: version: is to be 1"),
        ("version: 1\ngrups: {}", "fleet.yaml:2:1: grups: there is no such key"),
        ("version: 1\ngroups:\n  a: colour=", "fleet.yaml:3:3: groups.a.filter"),
        ("version: 1\ngroups:\n  a: all\n  a: all", "fleet.yaml:4:3: groups.a: is there twice"),
        ("version: 1\ngroups: [all]", "fleet.yaml:2:1: groups: is to be a mapping"),
        ("version: 1\ntags:\n  a: {line: 4}", "fleet.yaml:3:7: tags.a.line: is to be a text"),
        ("version: 1\ntags:\n  A: {line: x}", "fleet.yaml:3:3: tags.A: a name is"),
        ("version: 1\nwebhooks:\n  x: {url: ftp://x}", "fleet.yaml:3:3: webhooks.x: webhook addr"),
        ("version: 1\nmodels:\n  m: {}", "fleet.yaml:3:3: models.m.version: is to be a number"),
        ("version: 1\nmodels:\n  m: {version: 1, wave: [1]}", "there is no such key"),
        ("version: 1\nmodels:\n  m: {version: 1, waves: [9]}", "fleet.yaml:3:19: models.m.waves"),
        ("version: 1\nmodels:\n  m: {version: 1, canaries: [9]}", "models.m.canaries[0]: Input"),
        ("version: 1\nmodels:\n  m: {version: 1, to: 'x='}", "fleet.yaml:3:19: models.m.to"),
        ("version: 1\nmodels:\n  m: {version: 1, policy: {x: 1}}", "fleet.yaml:3:19: models.m.pol"),
        (
            "version: 1\nmodels:\n  m: {version: 1, gate: {limt: 1}}",
            "fleet.yaml:3:3: models.m: rollout",
        ),
        ("version: 1\nmodels:\n  m: [{version: 1, slot: 'A b'}]", "models.m[0].slot: a slot is"),
        ("version: &v 1\nfleet: *v", "anchors and aliases are not read"),
        ("version: !!python/object:os.system 1", "is no kind of value here"),
        ("version: 1\n---\nversion: 1", "fleet.yaml:2:1: not YAML"),
        ("version: [1", "not YAML"),
        ("version: 1\nfleet: \x00", "not YAML"),
        (f"version: 1\nfleet: {'[' * 2000}", "fleet.yaml"),
        ("? [a]\n: 1", "a key is a text"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(OperatorError) as caught:
        parse(text)
    assert said in caught.value.message


def test_values_are_those_of_yaml_1_2() -> None:
    text = "a: no\nb: 12:00\nc: 2026-11-26\nd: 0o17\ne: true\nf: ~\ng: 1.5\nh: -3\ni:\nj: 'x'"
    assert yaml_file.read(text, name="x").value == {
        "a": "no",
        "b": "12:00",
        "c": "2026-11-26",
        "d": "0o17",
        "e": True,
        "f": None,
        "g": 1.5,
        "h": -3,
        "i": None,
        "j": "x",
    }


def test_the_schema_takes_what_the_parser_takes() -> None:
    whole = schema()
    jsonschema.Draft202012Validator.check_schema(whole)
    jsonschema.validate(yaml_file.read(WHOLE, name="x").value, whole)
    for text in ("version: 2", "version: 1\nx: 1", "version: 1\nmodels: {m: {version: 1, x: 1}}"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(yaml_file.read(text, name="x").value, whole)
    words = whole["$defs"]["rollout"]["properties"]
    assert set(words) == {"version", *apply_file.rollout_words()}


WANTED = Wanted("digits", 2, "digits", "all")
SHELF = {("digits", n): BundleNow(f"d{n}", f"s{n}") for n in (1, 2, 3)}
THERE = Present(
    bundles=SHELF,
    devices={"a": DeviceNow(), "b": DeviceNow()},
    meant={"all": frozenset("ab")},
)


def rolled(
    version: int, *, to: str = "all", state: str = "completed", slot: str = "digits"
) -> RolloutNow:
    return RolloutNow(f"digits-{version}-r", slot, "digits", version, to, state)


def planned(present: Present, *wanted: Wanted, **more: Any) -> Plan:
    return plan(Declared(rollouts=wanted or (WANTED,)), present, **more)


@pytest.mark.parametrize(
    ("rollouts", "begins"),
    [
        ((), True),
        ((rolled(1),), True),
        ((rolled(2),), False),
        ((rolled(2, state="aborted"),), False),
        ((rolled(2), rolled(1)), True),
        ((rolled(1), rolled(2, to="id=a")), True),
        ((rolled(2, slot="other"),), True),
    ],
)
def test_a_rollout_begins_where_the_newest_for_its_target_is_another(
    rollouts: tuple[RolloutNow, ...], begins: bool
) -> None:
    found = planned(replace(THERE, rollouts=rollouts))
    assert [step.action for step in found.steps] == [Action.ROLL_OUT] * begins
    assert bool(found.unchanged) != begins
    assert not found.blocked


@pytest.mark.parametrize(
    "present",
    [
        replace(THERE, rollouts=(rolled(3),)),
        replace(THERE, devices={"a": DeviceNow(runs={"digits": ("digits", 3)}), "b": DeviceNow()}),
    ],
)
def test_nothing_goes_back_unless_the_file_says_so(present: Present) -> None:
    found = planned(present)
    assert not found.steps
    assert "would go back from version 3" in found.blocked[0]
    allowed = replace(WANTED, allow_downgrade=True, words={"allow_downgrade": True})
    (step,) = planned(present, allowed).steps
    assert step.body == {"bundle": "d2", "signature_sha256": "s2", "allow_downgrade": True}


@pytest.mark.parametrize(
    ("bundles", "said"),
    [({}, "not on the shelf"), ({("digits", 2): BundleNow("d", "s", "is not released")}, "relea")],
)
def test_what_cannot_be_rolled_out_is_in_the_way(bundles: Any, said: str) -> None:
    found = planned(replace(THERE, bundles=bundles))
    assert said in found.blocked[0]


def test_drift_is_what_runs_otherwise_and_what_nobody_declared() -> None:
    present = replace(
        THERE,
        devices={
            "a": DeviceNow(runs={"digits": ("digits", 1)}),
            "b": DeviceNow(runs={"digits": ("digits", 2), "old": ("old", 1)}),
        },
        rollouts=(rolled(2, state="paused"), rolled(1, slot="x", state="running")),
    )
    found = {(drift.noun, drift.name): drift.found for drift in planned(present).drift}
    assert found == {
        ("rollout", "digits-2-r"): "is paused: fleet rollouts show",
        ("device", "a"): "runs digits@1 in digits, declared is digits@2",
        ("rollout", "digits-1-r"): "is running, and slot x is not declared",
        ("slot", "old"): "is served by 1 devices, and not declared",
    }


def declared_as(text: str) -> Wanted:
    (found,) = parse(f"version: 1\nmodels:\n  digits: {{version: 2, {text}}}\n").rollouts or ()
    return found


def begun_as(text: str) -> RolloutNow:
    return replace(rolled(2), how=declared_as(text).how)


@pytest.mark.parametrize(
    ("there", "declared", "said"),
    [
        ("waves: [100]", "waves: [5, 25, 100]", "waves is 100, declared is 5,25,100"),
        ("", "gate: {limit: 0.1}", "gate.limit is 0.05, declared is 0.1"),
        ("max_failures: 2", "", "gate.max_failures is 2, declared is none"),
        ("", "policy: {max_bytes_per_s: 2000}", "policy.max_bytes_per_s is 0, declared is 2000"),
        ("", "policy: {conditions: {mains: true}}", "policy.conditions.mains is false"),
        ("", "canaries: [a, b]", "canaries is none, declared is a,b"),
        ("retries: {most: 0}", "", "retries.most is 0, declared is 2"),
        (
            "model_gates: [{kind: errors, limit: 0.02}]",
            "",
            "model_gates.errors.limit is 0.02, declared is 0.05",
        ),
        ("", "sealed: true", "sealed is false, declared is true"),
        ("reference: {outputs: [9]}", "reference: {outputs: [1]}", "reference.outputs is 9"),
    ],
)
def test_another_way_to_go_about_it_is_drift_and_begins_anew_only_when_asked(
    there: str, declared: str, said: str
) -> None:
    present = replace(THERE, rollouts=(begun_as(there),))
    found = planned(present, declared_as(declared))
    assert not found.steps
    assert said in found.drift[0].found
    assert "counts from the next version on" in found.drift[0].found
    (step,) = planned(present, declared_as(declared), again=True).steps
    assert step.action is Action.ROLL_OUT
    assert said in step.detail
    assert not [drift for drift in found.drift if drift.noun == "rollout"][1:]


@pytest.mark.parametrize(
    ("there", "declared"),
    [
        ("waves: [100]", ""),
        ("start_at: 5, expires_at: 9, draft: true", "allow_downgrade: true"),
        ("reference: {outputs: [9]}", ""),
    ],
)
def test_what_is_one_rollout_s_own_is_no_drift(there: str, declared: str) -> None:
    present = replace(THERE, rollouts=(begun_as(there),))
    for again in (False, True):
        found = planned(present, declared_as(declared), again=again)
        assert not found.steps
        assert not [drift for drift in found.drift if drift.noun == "rollout"]


def test_a_rollout_of_a_release_that_knows_more_is_left_alone() -> None:
    present = replace(THERE, rollouts=(replace(begun_as(""), how=None),))
    found = planned(present, declared_as("waves: [5, 100]"), again=True)
    assert (found.steps, [d.noun for d in found.drift]) == ((), ["device", "device"])


def test_groups_come_before_who_names_them_and_go_after() -> None:
    named = {"a": Group("group:b"), "b": Group("group:c"), "c": Group("hw=arm64")}
    added = plan(Declared(groups=named), Present())
    assert [step.name for step in added.steps] == ["c", "b", "a"]
    gone = plan(Declared(groups={}), Present(groups=named), prune=True)
    assert [(s.action, s.name) for s in gone.steps] == [(Action.REMOVE, n) for n in "abc"]
    kept = plan(Declared(groups={}), Present(groups=named))
    assert (kept.steps, len(kept.drift)) == ((), 3)
    assert plan(Declared(), Present(groups=named), prune=True) == Plan()


def test_a_file_for_another_fleet_is_in_the_way() -> None:
    assert plan(Declared(fleet="x"), Present(fleet="demo")).blocked


@pytest.fixture
def http(services: Services) -> Iterator[Web]:
    with serving(create_app(services)) as web:
        yield web


def applied(web: Web, file: Path, *more: str | Path, token: str = TOKEN) -> tuple[int, Any]:
    words = ("apply", "-f", file, "--json", *more)
    done = inside.fleet(*words, FLEET_URL=web.base, FLEET_TOKEN=token)
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def test_a_file_is_planned_applied_and_then_there_is_nothing_to_do(
    services: Services, stage: Stage, http: Web, tmp_path: Path
) -> None:
    stage.devices("a", "b")
    stage.bundle(1)
    file, secrets = tmp_path / "fleet.yaml", tmp_path / "secrets"
    file.write_text(WHOLE)
    code, found = applied(http, file, "--plan")
    assert (code, found["done"]) == (0, [])
    steps = [f"{step['action']} {step['noun']}" for step in found["steps"]]
    assert steps == [
        *("add group", "add group", "change tags", "change tags", "add webhook"),
        "roll-out rollout",
    ]
    with services.room.store.begin() as tx:
        assert tx.groups.filters() == {}, "a plan changes nothing"
    assert "--yes" in applied(http, file, "--secrets", secrets)[1]
    assert "--secrets FILE" in applied(http, file, "--yes")[1]
    code, found = applied(http, file, "--yes", "--secrets", secrets)
    assert (code, len(found["done"]), found["failed"]) == (0, 6, None)
    assert secrets.stat().st_mode & 0o777 == 0o600
    assert json.loads(secrets.read_text())["secret"].startswith("whsec_")
    (rollout,) = found["rollouts"]
    view = stage.view(rollout)
    assert (view["to"], view["canaries"], view["max_failures"]) == ("tag.site=hall3", ["a"], 1)
    assert view["policy"]["probation_s"] == 3
    code, found = applied(http, file, "--yes")
    assert (code, found["steps"], len(found["unchanged"])) == (0, [], 6)
    assert {drift["name"] for drift in found["drift"]} == {"a", "b"}, "nothing runs yet"


def test_other_waves_are_shown_and_begin_anew_when_asked(
    stage: Stage, http: Web, tmp_path: Path
) -> None:
    stage.devices("a", "b")
    stage.bundle(1)
    file = tmp_path / "fleet.yaml"
    file.write_text("version: 1\nmodels: {digits: {version: 1}}\n")
    (first,) = applied(http, file, "--yes")[1]["rollouts"]
    stage.commit("a")
    stage.commit("b")
    assert applied(http, file, "--plan")[1]["drift"] == []
    file.write_text("version: 1\nmodels: {digits: {version: 1, waves: [50, 100]}}\n")
    code, found = applied(http, file, "--yes")
    assert (code, found["steps"]) == (0, [])
    assert [drift["name"] for drift in found["drift"]] == [first]
    before = stage.order("a")
    code, found = applied(http, file, "--yes", "--again")
    assert code == 0
    (second,) = found["rollouts"]
    assert "again, waves is 100, declared is 50,100" in found["done"][0]["detail"]
    assert (stage.state(second), stage.order("a")) == ("completed", before)
    found = applied(http, file, "--yes", "--again")[1]
    assert (found["steps"], found["drift"]) == ([], [])


def test_it_stops_at_the_first_refusal_and_says_how_far_it_came(
    services: Services, stage: Stage, http: Web, tmp_path: Path
) -> None:
    stage.devices("a", "b")
    stage.bundle(1)
    file = tmp_path / "fleet.yaml"
    file.write_text(
        "version: 1\ngroups: {hall3: tag.site=hall3}\nmodels:\n"
        "  digits: [{version: 1, to: id=a, canaries: [b]}, {version: 1, to: id=b}]\n"
    )
    code, found = applied(http, file, "--yes")
    assert code == 1
    assert [step["name"] for step in found["done"]] == ["hall3"]
    assert found["failed"]["name"] == "digits@1 to id=a"
    assert [step["name"] for step in found["not_begun"]] == ["digits@1 to id=b"]
    file.write_text("version: 1\ngroups: {}\n")
    assert applied(http, file, "--yes")[1]["drift"][0]["found"] == "is not declared"
    assert applied(http, file, "--yes", "--prune")[1]["done"][0]["action"] == "remove"
    file.write_text("version: 1\nmodels: {digits: {version: 9}}\n")
    assert applied(http, file, "--yes")[0] == 3
    _, token = services.access.users.add("v", Role.VIEWER, days=None, actor=ME)
    file.write_text("version: 1\ngroups: {hall4: tag.site=hall4}\n")
    assert applied(http, file, "--plan", token=token)[0] == 0, "whoever may read may plan"
    assert applied(http, file, "--yes", token=token)[0] == 3


def test_the_files_of_the_guide_are_what_they_are_said_to_be() -> None:
    blocks = [part.partition("```")[0] for part in GUIDE.read_text().split("```yaml\n")[1:]]
    assert blocks
    for block in blocks:
        assert parse(block).rollouts is not None
        assert yaml.safe_load(block)["version"] == 1
