"""The command line: its voice, its exit codes, and what it does without an answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgefleet_contract.keys import PrivateKey
from tests.contract.makers import write_bundle
from tests.fleet.running import Fleet, free_port

COMMANDS = [
    [],
    ["init"],
    ["serve"],
    ["push-model"],
    *(["keys", verb] for verb in ("init", "show", "refresh", "floor", "add-publisher")),
    *(["keys", "rotate", what] for what in ("root", "director")),
    *(["keys", "revoke", what] for what in ("bundle", "publisher", "director")),
    *(["users", verb] for verb in ("list", "add", "revoke")),
    *(["devices", verb] for verb in ("list", "show", "claim", "requests", "approve", "deny")),
    *(["devices", verb] for verb in ("revoke", "forget", "decommission", "enrol", "tag")),
    *(["devices", verb] for verb in ("events", "command", "logs", "quarantines", "retry")),
    *(["groups", verb] for verb in ("create", "list", "show", "delete", "preview")),
    *(["bundles", verb] for verb in ("list", "show", "push")),
    *(["rollouts", verb] for verb in ("list", "show", "watch", "pause", "resume", "abort")),
    *(["rollouts", verb] for verb in ("revert", "start", "approve", "deny", "promote")),
]


def fleet_command(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
    return subprocess.run(
        [sys.executable, "-m", "edgefleet_fleet", *map(str, arguments)],
        env={**clean, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_command_and_option_has_a_sentence_of_help() -> None:
    import typer

    from edgefleet_fleet.cli import app

    root = typer.main.get_command(app)
    for words in COMMANDS:
        command = root
        for word in words:
            command = command.commands[word]  # type: ignore[attr-defined] # a group, here
        assert command.help, words
        for option in command.params:
            if option.param_type_name == "option" and option.name != "help":
                assert option.help, (words, option.name)


def test_an_option_that_does_not_exist_is_a_usage_error() -> None:
    done = fleet_command("serve", "--prot", "1")
    assert done.returncode == 2
    assert done.stderr.startswith("fleet: error: ")
    assert "fleet: hint: fleet serve --help" in done.stderr


def test_without_a_token_it_says_where_to_find_one(tmp_path: Path) -> None:
    done = fleet_command("devices", "list", "--data", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "FLEET_TOKEN" in done.stderr


def test_a_control_room_that_is_away_is_exit_code_4() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = fleet_command("devices", "list", FLEET_TOKEN="x", FLEET_URL=url)
    assert done.returncode == 4
    assert done.stderr.startswith(f"fleet: error: cannot reach the control room at {url}")
    assert "is `fleet serve` running?" in done.stderr


def test_a_directory_that_is_no_bundle_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        done = fleet_command("push-model", folder, FLEET_TOKEN="x", FLEET_URL="http://127.0.0.1:1")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr


def test_an_edited_bundle_is_refused_before_anything_is_sent(
    tmp_path: Path, publisher: PrivateKey
) -> None:
    folder = write_bundle(tmp_path, publisher)
    (folder / "v" / "model.onnx").write_bytes(b"other")
    done = fleet_command("push-model", folder, FLEET_TOKEN="x", FLEET_URL="http://127.0.0.1:1")
    assert done.returncode == 3
    assert "v/model.onnx" in done.stderr


@pytest.mark.parametrize(
    "flags", [("--to", "colour=red"), ("--waves", "50,10"), ("--waves", "10,50")]
)
def test_a_filter_or_waves_that_cannot_be_are_refused_with_a_hint(
    tmp_path: Path, publisher: PrivateKey, flags: tuple[str, str]
) -> None:
    folder = write_bundle(tmp_path, publisher)
    done = fleet_command("push-model", folder, *flags, FLEET_TOKEN="x")
    assert done.returncode == 3
    assert "fleet: hint: " in done.stderr


def test_what_a_board_says_of_itself_draws_no_row_and_moves_no_cursor(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from edgefleet_fleet import cli_show

    row = {"device": "pi-1", "board": "Pi 5\npi-2  0000\x1b[2K\x1b[1A\u202e"}
    cli_show.rows([row], as_json=False, columns=("device", "board"))
    said = capsys.readouterr().out
    assert said.splitlines()[1:] == ["pi-1    Pi 5?pi-2  0000?[2K?[1A?"]


def test_a_missing_extra_explains_itself() -> None:
    program = "import sys; sys.modules['sqlalchemy'] = None\n"
    program += "from edgefleet_fleet.__main__ import main\nsys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "init"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "fleet: error: sqlalchemy is not installed\nfleet: hint: pip install 'edgefleet[fleet]'\n"
    )


def test_init_makes_a_directory_that_belongs_to_its_fleet(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert fleet_command("init", "--data", data, "--name", "plant").returncode == 0
    assert (data / "keys" / "repository.pem").stat().st_mode & 0o777 == 0o600
    again = fleet_command("init", "--data", data, "--name", "other")
    assert again.returncode == 1
    assert "belongs to fleet 'plant'" in again.stderr
    assert fleet_command("init", "--data", data).returncode == 0


@pytest.mark.system
def test_results_go_to_stdout_and_talk_to_stderr(
    fleet: Fleet, publisher: PrivateKey, tmp_path: Path
) -> None:
    fleet.trust(publisher)
    assert publisher.public.id[:16] in fleet.run("keys", "show").stdout
    claim = fleet.run("devices", "claim")
    assert claim.stdout.startswith("efc1.demo.")
    assert len(claim.stdout.splitlines()) == 1
    folder = write_bundle(tmp_path, publisher)
    assert len(fleet.run("bundles", "push", folder).stdout.strip()) == 64
    unreleased = fleet.run("push-model", folder)
    assert unreleased.returncode == 1
    assert "--key publisher.pem" in unreleased.stderr
    pushed = fleet.run("push-model", folder, "--key", fleet.key, "--json")
    assert json.loads(pushed.stdout)["counts"]["total"] == 0
    assert "no device is meant yet" in pushed.stderr
    assert json.loads(fleet.run("keys", "show", "--json").stdout)["root_threshold"] == 2
    for noun in ("devices", "rollouts", "bundles"):
        assert isinstance(json.loads(fleet.run(noun, "list", "--json").stdout), list)
    assert "digits-1-r1" in fleet.run("rollouts", "list").stdout
    assert fleet.run("rollouts", "pause", "digits-1-r1").stdout == "digits-1-r1: paused\n"
    assert fleet.run("rollouts", "watch", "digits-1-r1").returncode == 1
    stranger = write_bundle(tmp_path / "stranger", PrivateKey.generate_p256(), version=2)
    refused = fleet.run("push-model", stranger)
    assert refused.returncode == 3
    assert "signed by unknown key" in refused.stderr
    unlisted = fleet.run("push-model", stranger, "--no-check")
    assert (unlisted.returncode, "is not released" in unlisted.stderr) == (1, True)
    missing = fleet.run("devices", "show", "nobody")
    assert (missing.returncode, missing.stdout) == (1, "")
