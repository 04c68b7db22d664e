"""What holds for every command: JSON, exit codes, completion; and the audit trail and exports."""

from __future__ import annotations

import csv
import inspect
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from edgefleet_contract.errors import OperatorError
from edgefleet_contract.messages import render
from edgefleet_contract.topics import Channel
from edgefleet_fleet import cli_complete
from edgefleet_fleet.api import create_app
from edgefleet_fleet.cli import app
from edgefleet_fleet.doctor import SAY_WHO
from edgefleet_fleet.errors import EXIT_CODES, exit_codes
from edgefleet_fleet.export_columns import COLUMNS, Noun
from edgefleet_fleet.moments import parse_moment
from edgefleet_fleet.services import Services
from tests.fleet import inside
from tests.fleet.device import model_sample, system_sample
from tests.fleet.running import free_port
from tests.fleet.stage import TOKEN, Stage
from tests.fleet.web import Web, serving

CI = Path(__file__).parents[2] / "docs" / "guides" / "ci.md"
PRINTS = re.compile(
    r"show\.(one|json|rows|started|device|devices|rollout|rollouts|bundle)\(|_by_hand"
)


def leaves(command: Any = None, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    command = typer.main.get_command(app) if command is None else command
    if not hasattr(command, "commands"):
        yield at, command
        return
    for name, below in command.commands.items():
        yield from leaves(below, (*at, name))


def test_every_command_that_prints_takes_json() -> None:
    found = dict(leaves())
    assert len(found) > 55
    for words, command in found.items():
        options = {name for option in command.params for name in option.opts}
        said = inspect.getsource(inspect.unwrap(command.callback))
        to_stdout = PRINTS.search(said) or re.search(r"typer\.echo\((?![^)]*err=True)", said)
        assert not to_stdout or "--json" in options, words


def test_every_command_has_help_and_so_has_each_option() -> None:
    for words, command in leaves():
        assert command.help, words
        for option in command.params:
            if option.param_type_name == "option" and option.name != "help":
                assert option.help, (words, option.name)


def test_the_exit_codes_stand_in_the_help_and_in_the_guide() -> None:
    said = " ".join(inside.fleet("--help").stdout.split())
    assert exit_codes() in said
    for code, words in EXIT_CODES.items():
        assert f"| {code} | {words} |" in CI.read_text(), f"put | {code} | {words} | into ci.md"


def test_what_is_wrong_is_said_in_a_line_with_what_to_do_next(http: Web) -> None:
    def lines(*words: str, token: str = TOKEN) -> list[str]:
        return inside.fleet(*words, FLEET_URL=http.base, FLEET_TOKEN=token).stderr.splitlines()

    error, hint = lines("devices", "list", token="wrong")
    assert "not known here" in error
    assert hint == f"fleet: hint: {SAY_WHO}"
    assert lines("bundles", "show", "a/b") == [
        "fleet: error: there is nothing at '/api/v1/bundles/a/b'"
    ]
    error, hint = lines("users", "add", "bo")
    assert error.endswith("Choose from: viewer, operator, publisher, admin")
    assert hint == "fleet: hint: fleet users add --help"
    error, hint = lines("serve", "--data", "/proc/none", "--listen", "127.0.0.1:0")
    assert "/proc/none cannot be written" in error
    error, hint = lines("backup", "/dev/full/none", "--data", "/proc/none")
    assert "/proc/none is no data directory" in error


@pytest.mark.parametrize("program", ["edgefleet_fleet", "edgefleet_converter"])
def test_bash_completes_commands_by_the_script_that_the_program_gives(
    program: str, tmp_path: Path
) -> None:
    name = {"edgefleet_fleet": "fleet", "edgefleet_converter": "edge-convert"}[program]
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    start, wanted = {"fleet": ("dev", "devices"), "edge-convert": ("bui", "build")}[name]
    script = tmp_path / name
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m {program} "$@"\n')
    script.chmod(0o755)
    text = f"""
        eval "$({variable}=source_bash {name})"
        COMP_WORDS=({name} {start}); COMP_CWORD=1
        $(complete -p {name} | sed 's/.*-F \\([^ ]*\\).*/\\1/') {name}
        echo "${{COMPREPLY[@]}}"
    """
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", text], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [wanted], done.stderr


def test_names_are_completed_where_the_control_room_answers_and_else_nothing_is_said(
    filled: Stage, http: Web, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    filled.devices("bb")
    monkeypatch.setattr(cli_complete, "_PATIENCE_S", (30, 30))  # this machine may be busy
    monkeypatch.setenv("FLEET_TOKEN", TOKEN)
    context = typer.Context(typer.main.get_command(app))
    context.params["url"] = http.base
    assert cli_complete.devices(context, "b") == ["b", "bb"]
    assert cli_complete.bundles(context, "") == ["digits-1"]
    assert cli_complete.models(context, "d") == ["digits"]
    assert cli_complete.groups(context, "") == cli_complete.webhooks(context, "") == []
    context.params["url"] = f"http://127.0.0.1:{free_port()}"
    assert cli_complete.devices(context, "b") == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(shell: str) -> None:
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name="fleet", complete_var="_FLEET_COMPLETE", shell=shell)
    assert "_FLEET_COMPLETE" in script


@pytest.fixture
def http(services: Services) -> Iterator[Web]:
    with serving(create_app(services)) as web:
        yield web


@pytest.fixture
def filled(stage: Stage, http: Web) -> Stage:
    stage.devices("a", "b")
    stage.roll_out(1)
    stage.commit("a")
    stage.take("a", Channel.TELEMETRY_SYSTEM, render(system_sample("a", ts=5_000)))
    stage.take("a", Channel.TELEMETRY_MODEL, render(model_sample("a", ts=6_000)))
    return stage


def run(web: Web, *words: str | Path) -> inside.Done:
    done = inside.fleet(*words, FLEET_URL=web.base, FLEET_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    return done


def test_the_audit_trail_is_searched_by_who_what_and_since(filled: Stage, http: Web) -> None:
    rows = json.loads(run(http, "audit", "--json").stdout)
    assert rows[0]["number"] > rows[-1]["number"]
    kinds = {
        row["what"]
        for row in json.loads(run(http, "audit", "--what", "rollout.*", "--json").stdout)
    }
    assert kinds
    assert all(kind.startswith("rollout.") for kind in kinds)
    mine = json.loads(run(http, "audit", "--who", "test?r", "--json").stdout)
    assert {row["who"] for row in mine} == {"tester"}
    assert json.loads(run(http, "audit", "--who", "test_r", "--json").stdout) == []
    assert json.loads(run(http, "audit", "--since", "2036-01-01", "--json").stdout) == []
    assert len(json.loads(run(http, "audit", "-n", "2", "--json").stdout)) == 2
    assert "rollout.begin" in run(http, "audit").stdout
    first = http.get("/api/v1/audit?limit=3", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    after = http.get(
        f"/api/v1/audit?limit=3&after={first['next']}",
        headers={"Authorization": f"Bearer {TOKEN}"},
    ).json()
    assert [row["number"] for row in first["audit"] + after["audit"]] == [
        row["number"] for row in rows[:6]
    ]


def test_each_noun_is_exported_as_lines_and_as_a_table(
    filled: Stage, http: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgefleet_fleet import exports

    monkeypatch.setattr(exports, "_PIECE", 2)  # several pieces
    counts = {}
    for noun in Noun:
        lines = [json.loads(line) for line in run(http, "export", noun).stdout.splitlines()]
        table = tmp_path / f"{noun}.csv"
        done = run(http, "export", noun, "--format", "csv", "--out", table)
        rows = list(csv.DictReader(io.StringIO(table.read_text())))
        assert tuple(rows[0]) == COLUMNS[noun]
        assert len(rows) == len(lines)
        assert f"{len(rows)} {noun}" in done.stderr
        assert any(rows[0].values())
        known = set().union(*lines)
        assert noun is Noun.TELEMETRY or set(COLUMNS[noun]) <= known, set(COLUMNS[noun]) - known
        counts[noun] = len(lines)
    with filled.services.room.store.begin() as tx:
        assert counts[Noun.AUDIT] == len(tx.ledger.audit(limit=1000))
    assert (counts[Noun.DEVICES], counts[Noun.ROLLOUTS], counts[Noun.TELEMETRY]) == (2, 1, 2)
    assert sorted(path.name for path in tmp_path.glob("*.csv*")) == sorted(f"{n}.csv" for n in Noun)
    late = run(http, "export", "telemetry", "--since", "1970-01-01T00:00:06").stdout
    assert [json.loads(line)["stream"] for line in late.splitlines()] == ["model"]


def test_an_export_that_breaks_off_is_no_file(filled: Stage, http: Web, tmp_path: Path) -> None:
    out = tmp_path / "x.jsonl"
    with filled.services.room.store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE telemetry SET body = 'no json' WHERE stream = 'system'")
    done = inside.fleet("export", "telemetry", "--out", out, FLEET_URL=http.base, FLEET_TOKEN=TOKEN)
    assert done.returncode == 4
    assert list(tmp_path.glob("*x.jsonl*")) == []


def test_what_a_spreadsheet_would_run_is_text() -> None:
    from edgefleet_fleet.cli_audit import cell

    assert [cell(v) for v in ("=1+1", "@x", "", "a", -1, True, None, ["b"], {"c": 1})] == [
        *("'=1+1", "'@x", "", "a", "-1", "true", "", '["b"]', '{"c":1}')
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", 0),
        ("90m", 1_800_000_000 - 5400),
        ("2w", 1_800_000_000 - 14 * 86400),
        ("1795651200", 1795651200),
        ("2026-11-26", 1795651200),
        ("2026-11-26T01:00+01:00", 1795651200),
    ],
)
def test_a_moment_is_said_in_several_ways(text: str, wanted: int) -> None:
    assert parse_moment(text, now=1_800_000_000) == wanted


def test_what_is_no_moment_is_refused() -> None:
    with pytest.raises(OperatorError, match="is no moment"):
        parse_moment("soon", now=0)
