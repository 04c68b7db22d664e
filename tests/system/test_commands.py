"""Commands over a real broker to a real agent: done once, answered, refused, timed out."""

from __future__ import annotations

import json
import queue
import re
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgefleet_agent.config import load
from edgefleet_contract.commands import Command, Kind, seal_command
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.topics import Channel, topic
from edgefleet_fleet.adapters.sql.store import Store, sqlite_url
from edgefleet_fleet.cli import app
from edgefleet_fleet.client import Client
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.errors import Conflict
from tests.agent.bundles import make_bundle
from tests.agent.models import pixels
from tests.fleet.device import Connection
from tests.system.site import Site, open_site

pytestmark = pytest.mark.system
GUIDE = Path(__file__).parents[2] / "docs/guides/devices.md"
ROWS = pixels(1)
TENSOR = {"name": "x", "datatype": "FP32", "shape": list(ROWS.shape), "data": ROWS.tolist()}
INPUT = json.dumps({"inputs": [TENSOR]})
EVERYTHING = f"[commands]\nallow = {[kind.value for kind in Kind]}\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A control room, and two boards: pi-1 serves digits and does all that it is asked, pi-2 serves
    nothing and does what is the default."""
    with open_site(tmp_path_factory.mktemp("site"), is_tls=False) as opened:
        for device in ("pi-1", "pi-2"):
            state = opened.enrol(device)
            if device == "pi-1":
                with (state / "agent.toml").open("a") as file:
                    file.write(EVERYTHING)
            opened.start_agent(device)
        bundle = make_bundle(opened.root / "bundles", 1, key=opened.publisher)
        rollout = opened.push(bundle, "--to", "id=pi-1", "--probation", "0")
        opened.wait("version 1", lambda: opened.rollout_state(rollout) == "completed")
        yield opened


@pytest.fixture(scope="module")
def room(site: Site) -> Client:
    return Client(site.url, DataDir(site.data).read_token())


@pytest.fixture
def fleet(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command line, in this process: its exit code, and what it said where."""
    monkeypatch.setenv("FLEET_URL", site.url)
    monkeypatch.setenv("FLEET_DATA", str(site.data))

    def run(*words: str) -> tuple[int, str, str]:
        code = app(words, standalone_mode=False)
        told = capsys.readouterr()
        return code or 0, told.out, told.err

    return run


def ask(site: Site, room: Client, kind: Kind, device: str = "pi-1", **more: object) -> Any:
    """Give a command and wait for its end."""
    given = room.post("/commands", {"kind": kind, "device": device, **more})
    return end_of(site, room, given)


def end_of(site: Site, room: Client, given: Any) -> Any:
    path = f"/commands?of={given['request']}"
    site.wait("the answer", lambda: room.get(path)["commands"][0]["state"] != "open")
    return room.get(path)["commands"][0]


def test_a_device_says_what_it_is_and_how_it_is(site: Site, room: Client) -> None:
    assert ask(site, room, Kind.PING)["data"]["agent"]
    found = ask(site, room, Kind.SNAPSHOT)["data"]
    (slot,) = found["slots"]
    assert (slot["slot"], slot["model"], slot["ready"]) == ("digits", "digits@1", True)
    assert found["kept"]["committed"] == {"digits": "digits@1"}
    assert found["system"]["disk_free_bytes"] > 0
    view = room.get("/devices/pi-1")
    inventory = view["inventory"]
    assert inventory == found["board"] | {
        "agent": view["agent"],
        "reported_at": inventory["reported_at"],
    }
    assert inventory["cpu"]
    assert inventory["kernel"]
    assert inventory["disk_bytes"] > 2**20


def test_what_serves_is_held_against_its_golden_outputs_again(site: Site, room: Client) -> None:
    found = ask(site, room, Kind.SELF_TEST)
    assert found["state"] == "done", found
    assert found["data"]["slots"]["digits"]["passed"]
    assert found["data"]["slots"]["digits"]["vectors"] > 0
    assert "digits" in ask(site, room, Kind.SELF_TEST, slot="other")["detail"]


def test_a_given_input_is_predicted_where_the_owner_allows_it(site: Site, room: Client) -> None:
    found = ask(site, room, Kind.PREDICT, slot="digits", body=INPUT)
    assert found["state"] == "done", found
    (output,) = json.loads(found["data"]["body"])["outputs"]
    assert output["data"] == pytest.approx(site.ask("pi-1")[1]["predictions"][0])
    refused = ask(site, room, Kind.PREDICT, "pi-2", slot="digits", body=INPUT)
    assert (refused["state"], refused["data"]) == ("refused", {})
    assert "[commands] in agent.toml" in refused["detail"]


def test_the_log_comes_masked_and_only_where_the_owner_allows_it(
    site: Site, room: Client, fleet: Callable[..., tuple[int, str, str]]
) -> None:
    site.wait("a line", lambda: ask(site, room, Kind.LOGS, lines=100)["data"]["lines"])
    assert ask(site, room, Kind.LOGS, "pi-2", lines=100)["state"] == "refused"
    code, out, _ = fleet("devices", "logs", "pi-1", "-n", "5")
    assert code == 0
    assert 1 <= len(out.splitlines()) <= 5


def test_a_worker_is_restarted_and_no_request_is_lost(site: Site, room: Client) -> None:
    before = ask(site, room, Kind.SNAPSHOT)["data"]["slots"][0]
    found = ask(site, room, Kind.RESTART_WORKER, slot="digits")
    assert found["state"] == "done", found
    assert site.ask("pi-1")[0] == 200
    after = ask(site, room, Kind.SNAPSHOT)["data"]["slots"][0]
    assert (after["restarts"], after["failures"]) == (0, before["failures"])


def test_a_command_that_is_replayed_forged_or_anothers_does_nothing(
    site: Site, room: Client
) -> None:
    """Whoever has the control room's data base, but not its key, has it send what they like."""
    given = ask(site, room, Kind.PING)
    now = int(time.time())
    director = PrivateKey.load(site.data / "keys" / "director.pem")
    store = Store(sqlite_url(site.data / "fleet.db"))
    with store.begin() as tx:
        said = tx.commands.get(given["id"])
    assert said is not None
    forged = Command("demo", "pi-1", "forged", now + 99, now, now + 60, Kind.PING)
    other = Command("demo", "pi-2", "other", now + 99, now, now + 60, Kind.PING)
    late = Command("demo", "pi-1", "late", now + 100, now - 200, now - 100, Kind.PING)
    envelopes = {
        "replayed": said.envelope,
        "forged": seal_command(forged, PrivateKey.generate_ed25519()),
        "other": seal_command(other, director),
        "huge": b"x" * 200_000,
        "late": seal_command(late, director),  # the last: when it is answered, all were heard
    }
    with store.begin() as tx:
        for number, (name, raw) in enumerate(envelopes.items(), now + 50):
            row = replace(said, id=name, seq=number, issued=now, expires=now + 60, envelope=raw)
            tx.commands.add(replace(row, outcome=None, answered_at=None, result=None), keep=100)
    store.close()
    site.stop("pi-1")
    site.start_agent("pi-1")  # it is sent what is open
    site.wait("the answer", lambda: room.get("/commands/late")["state"] == "refused")
    assert {room.get(f"/commands/{name}")["state"] for name in list(envelopes)[:-1]} == {"open"}
    log = site.log("pi-1")
    assert "a command is refused: command: signed by unknown key" in log
    assert f"command {given['id']} is not heard: number {given['number']} was taken" in log
    assert "command other is not heard: it is for pi-2" in log
    assert "a command of 200000 bytes is dropped" in log
    site.wait("digits", lambda: site.version("pi-1") == 1)


def test_many_are_asked_at_once_and_one_that_is_away_is_named(
    site: Site, room: Client, fleet: Callable[..., tuple[int, str, str]]
) -> None:
    room.post("/devices/pi-2/tags", {"tags": {"site": "hall3"}})
    _, out, _ = fleet("devices", "command", "ping", "--to", "tag.site=hall3 or id=pi-1")
    assert [line.partition(":")[0] for line in out.splitlines()] == ["pi-1", "pi-2"]
    site.stop("pi-2")
    site.wait("it to be away", lambda: not room.get("/devices/pi-2")["online"])
    code, _, said = fleet("devices", "command", "pi-2", "ping", "--timeout", "1")
    assert code == 4
    assert "pi-2 did not answer ping within 1 s: offline, last seen 2" in said
    # one that still holds when the board is back is done then: nothing but the broker carries it
    given = room.post("/commands", {"kind": "ping", "device": "pi-2", "seconds": 60})
    site.start_agent("pi-2")
    assert end_of(site, room, given)["state"] == "done"


def test_kill_9_between_a_command_and_its_answer_does_it_once_at_most_and_answers(
    site: Site, room: Client
) -> None:
    file = site.root / "pi-1" / "commands.log"
    before = site.log("pi-1").count("restart-worker by the fleet")
    given = room.post("/commands", {"kind": "restart-worker", "device": "pi-1", "slot": "digits"})
    name = given["commands"][0]["id"]
    site.wait("it to be begun", lambda: name in file.read_text())
    site.kill("pi-1")
    site.start_agent("pi-1")
    found = end_of(site, room, given)
    assert found["state"] in ("interrupted", "done")
    assert site.log("pi-1").count("restart-worker by the fleet") == before + 1
    if found["state"] == "interrupted":
        assert "not done again" in found["detail"]


def is_cleared(site: Site, device: str) -> bool:
    """Whether the broker holds nothing of a device; False also while it is being restarted."""
    mine: set[str] = set()
    try:
        with Connection(site.data / "keys", "observer", "127.0.0.1", site.mqtt_port) as broker:
            for name in (device, "pi-1"):
                for channel in (Channel.DESIRED, Channel.REPORTED, Channel.ONLINE):
                    broker.subscribe(topic("demo", name, channel))
            while len(mine) < 3:  # of pi-1, which come last
                where, _ = broker.arrived.get(timeout=5)
                if f"/{device}/" in where:
                    return False
                mine.add(where)
    except (OSError, queue.Empty):
        return False
    return True


def guide_lines() -> list[list[str]]:
    """The commands of the guide, in their order."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for kind, block in blocks if not kind for line in block.splitlines()]
    assert all(words[0] == "fleet" for words in lines)
    return [words[1:] for words in lines]


def test_the_guide_runs_and_a_decommissioned_device_leaves_nothing_behind(
    site: Site,
    fleet: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "request.json").write_text(INPUT)
    (settings,) = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (tmp_path / "agent.toml").write_text(settings)
    assert set(load(None, tmp_path).commands.allow) == set(Kind)
    said: dict[str, str] = {}
    for words in guide_lines():
        if words[:2] == ["devices", "retry"]:
            with pytest.raises(Conflict, match="not quarantined"):  # nothing failed here
                fleet(*words)
            continue
        code, out, err = fleet(*words)
        assert code == 0, (words, err)
        said[" ".join(words)] = out
    assert said["devices tag pi-1 --remove line"] == "site=hall3\n"
    assert said["groups show hall3"] == "hall3: tag.site=hall3\npi-1\n"
    assert said["groups preview group:hall3 and online=true"].startswith("1 devices\npi-1  ")
    (row,) = json.loads(said["devices command pi-1 snapshot --json"])
    assert row["data"]["phase"] in ("idle", "committed")
    assert json.loads(said["devices command pi-1 predict --slot digits --input request.json"])
    site.wait("its last will to be cleared, too", lambda: is_cleared(site, "pi-2"))
    (gone,) = [r for r in site.get("/audit")["audit"] if r["what"] == "device.decommission"]
    assert gone["subject"] == "pi-2"
