"""Commands from the control room: who may give which, what is sent, and what is taken back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgefleet_contract.commands import Command, CommandResult, Kind, Outcome
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.messages import render
from edgefleet_contract.reported import Presence
from edgefleet_contract.topics import Channel
from edgefleet_fleet.api import create_app
from edgefleet_fleet.commands import MAX_OPEN, Wish
from edgefleet_fleet.errors import Conflict, NotFound
from edgefleet_fleet.records import CommandRow
from edgefleet_fleet.roles import COMMANDS, Permission, Role, may
from edgefleet_fleet.services import Services
from tests.fleet.stage import ME, Clock, Stage
from tests.fleet.web import serving


def result_of(command: Command, outcome: Outcome = Outcome.DONE, **data: object) -> CommandResult:
    return CommandResult(
        command.device, "boot", command.issued, command.id, command.kind, outcome, "", data or None
    )


def kept(services: Services, command: Command) -> CommandRow:
    with services.room.store.begin() as tx:
        found = tx.commands.get(command.id)
    assert found is not None
    return found


def test_a_command_is_signed_for_one_device_with_a_number_that_rises(stage: Stage) -> None:
    stage.devices("a", "b")
    for _ in range(2):
        stage.services.commands.give(Wish(Kind.PING, to="all", seconds=30), actor=ME)
    first, second = stage.commands("a")
    assert (first.device, first.fleet, first.kind) == ("a", "demo", Kind.PING)
    assert first.expires - first.issued == 30
    assert second.seq == first.seq + 1 > first.issued
    assert len({command.id for name in "ab" for command in stage.commands(name)}) == 4


def test_numbers_rise_also_where_an_old_data_base_was_brought_back(
    stage: Stage, clock: Clock
) -> None:
    stage.devices("a")
    for _ in range(5):
        stage.services.commands.give(Wish(Kind.PING, device="a"), actor=ME)
    with stage.services.room.work() as work:
        work.tx.devices.set_last_command("a", 0)
        work.tx.commands.drop_device("a")
    clock.now += 60
    stage.services.commands.give(Wish(Kind.PING, device="a"), actor=ME)
    numbers = [command.seq for command in stage.commands("a")]
    assert numbers == sorted(set(numbers))


def test_the_first_answer_counts_and_only_the_devices_own(stage: Stage) -> None:
    stage.devices("a", "b")
    stage.services.commands.give(Wish(Kind.SNAPSHOT, device="a"), actor=ME)
    (command,) = stage.commands("a")
    theirs = replace(result_of(command, load=9.0), device="b")
    stage.take("b", Channel.RESPONSE, render(theirs))
    assert kept(stage.services, command).outcome is None
    stage.take("a", Channel.RESPONSE, render(result_of(command, load=1.0)))
    stage.take("a", Channel.RESPONSE, render(result_of(command, Outcome.FAILED)))
    found = kept(stage.services, command)
    assert found.outcome is Outcome.DONE
    assert found.result is not None
    assert found.result.data == {"load": 1.0}


def test_what_was_not_answered_is_sent_again_when_the_device_comes_back(
    stage: Stage, clock: Clock
) -> None:
    stage.devices("a")
    stage.services.commands.give(Wish(Kind.PING, device="a", seconds=60), actor=ME)
    back = Presence("a", "boot", True, "0.1", clock.now)
    stage.take("a", Channel.ONLINE, render(back))
    first, again = stage.commands("a")
    assert first == again
    stage.services.commands.publish_open()
    assert len(stage.commands("a")) == 3
    clock.now += 61
    stage.take("a", Channel.ONLINE, render(back))
    assert len(stage.commands("a")) == 3
    assert kept(stage.services, first).state(clock.now) == "expired"


def test_nobody_is_asked_who_is_not_in_service_or_has_enough_to_do(stage: Stage) -> None:
    stage.devices("a", "b")
    give = stage.services.commands.give
    with pytest.raises(NotFound):
        give(Wish(Kind.PING, device="x"), actor=ME)
    with pytest.raises(OperatorError, match="no device is meant"):
        give(Wish(Kind.PING, to="tag.x=1"), actor=ME)
    with pytest.raises(OperatorError, match="for a device, or"):
        give(Wish(Kind.PING), actor=ME)
    with pytest.raises(Malformed, match="no slot"):
        give(Wish(Kind.RESTART_WORKER, device="a"), actor=ME)
    with pytest.raises(Malformed, match="not JSON"):
        give(Wish(Kind.PREDICT, device="a", slot="digits", body="{"), actor=ME)
    for _ in range(MAX_OPEN):
        give(Wish(Kind.PING, device="a"), actor=ME)
    with pytest.raises(Conflict, match="to answer already"):
        give(Wish(Kind.PING, to="all"), actor=ME)
    assert stage.commands("b") == []  # all or none


def test_of_a_device_the_newest_commands_are_kept(stage: Stage) -> None:
    stage.devices("a")
    config = replace(stage.services.room.config, commands_keep=MAX_OPEN)
    stage.services.room.config = config
    for _ in range(MAX_OPEN + 3):
        stage.services.commands.give(Wish(Kind.PING, device="a"), actor=ME)
        stage.take("a", Channel.RESPONSE, render(result_of(stage.commands("a")[-1])))
    with stage.services.room.store.begin() as tx:
        rows = tx.commands.of_device("a", limit=100)
        audit = [row for row in tx.ledger.audit() if row.what == "command.ping"]
    assert [row.seq for row in rows] == sorted((row.seq for row in rows), reverse=True)
    assert len(rows) == MAX_OPEN
    assert len(audit) == MAX_OPEN + 3
    assert {row.subject for row in audit} == {"a"}


def test_predictions_by_command_are_an_admins_and_so_are_their_answers(stage: Stage) -> None:
    assert COMMANDS.keys() == set(Kind)
    assert [kind for kind in Kind if COMMANDS[kind] is Permission.ADMINISTER] == [Kind.PREDICT]
    assert not any(may(Role.VIEWER, needed) for needed in COMMANDS.values())
    stage.devices("a")
    users = stage.services.access.users
    tokens = {role: users.add(f"a-{role}", role, days=None, actor=ME)[1] for role in Role}
    body = {"kind": "predict", "device": "a", "slot": "digits", "body": '{"inputs": []}'}
    with serving(create_app(stage.services)) as http:

        def ask(
            role: Role, method: str, path: str, **more: object
        ) -> tuple[int, dict[str, object]]:
            headers = {"Authorization": f"Bearer {tokens[role]}"}
            answer = http.request(method, f"/api/v1{path}", headers=headers, **more)
            return answer.status_code, answer.json()

        assert ask(Role.OPERATOR, "POST", "/commands", json=body)[0] == 403
        status, given = ask(Role.ADMIN, "POST", "/commands", json=body)
        assert status == 201
        (command,) = stage.commands("a")
        stage.take("a", Channel.RESPONSE, render(result_of(command, body="secret")))
        path = f"/commands/{command.id}"
        assert ask(Role.ADMIN, "GET", path)[1]["data"] == {"body": "secret"}
        status, seen = ask(Role.OPERATOR, "GET", path)
        assert (status, seen["state"], "data" in seen) == (200, "done", False)
        assert ask(Role.VIEWER, "GET", path)[0] == 403
        status, listed = ask(Role.VIEWER, "GET", "/devices/a/commands")
        assert status == 200
        assert "secret" not in str(listed)
        assert str(given["request"]) in str(listed)
