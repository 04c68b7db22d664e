"""The agent as a process, with a real control room and broker, and what goes wrong around them."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.agent.bundles import make_bundle
from tests.agent.models import WEIGHTS, pixels
from tests.fleet.running import until
from tests.system.site import BIN, Site, open_site

pytestmark = pytest.mark.system


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path) as opened:
        yield opened


def bundle(site: Site, version: int, **more: object) -> Path:
    return make_bundle(site.root / "bundles", version, key=site.publisher, **more)  # type: ignore[arg-type]


def deploy(site: Site, device: str, version: int) -> None:
    rollout = site.push(bundle(site, version))
    site.wait(f"version {version}", lambda: site.version(device) == version)
    site.wait("the rollout", lambda: site.rollout_state(rollout) == "completed")


def test_an_agent_survives_kill_9_a_dead_fleet_and_a_dead_broker(site: Site) -> None:
    site.enrol("pi-1")
    site.start_agent("pi-1")
    deploy(site, "pi-1", 1)

    # the fleet and its broker go; the models do not
    site.kill("fleet")
    assert site.ask("pi-1")[0] == 200

    # the agent goes too, and starts with nobody to talk to: it serves what it had
    site.kill("pi-1")
    assert site.version("pi-1") is None
    site.start_agent("pi-1")
    site.wait("serving without a broker", lambda: site.version("pi-1") == 1)
    status, value = site.ask("pi-1")
    assert status == 200
    assert np.allclose(value["predictions"], pixels(1) @ WEIGHTS + 1)

    # the fleet comes back: the link does by itself, and the next version arrives
    site.start_fleet()
    deploy(site, "pi-1", 2)
    assert site.stop("pi-1") == 0


def test_a_device_killed_in_the_middle_of_an_install_converges(site: Site) -> None:
    site.enrol("pi-1")
    site.start_agent("pi-1")
    deploy(site, "pi-1", 1)
    policy = site.root / "policy.toml"  # with it, an install passes every phase
    policy.write_text(
        '[[windows]]\nstart = "00:00"\nminutes = 10080\n'
        "[shadow]\nseconds = 1\n[canary]\nseconds = 1\n"
    )
    early = ("downloading", "staged", "wait_window")
    late = ("selftest", "shadow", "canary", "activating", "probation")
    for round_number, phase in enumerate((*early, *late), 2):
        made = bundle(site, round_number)
        rollout = site.push(made, "--probation", "1", "--policy", policy)
        site.wait(phase, lambda word=phase: f"-> {word}" in site.log("pi-1").rpartition("@@")[2])
        site.kill("pi-1")
        with (site.root / "pi-1.log").open("a") as log:
            log.write("@@")  # what comes after is of the next life
        site.start_agent("pi-1")
        site.wait("the end", lambda ended=rollout: site.rollout_state(ended) == "completed")
        assert site.version("pi-1") == round_number


def test_telemetry_and_state_reach_the_fleet(site: Site) -> None:
    state = site.enrol("pi-1")
    with (state / "agent.toml").open("a") as settings:
        settings.write('[runtime]\naccelerators = ["edgetpu"]\n')
    site.start_agent("pi-1")
    deploy(site, "pi-1", 1)
    for _ in range(3):
        site.ask("pi-1")

    def counted() -> bool:
        samples = site.get("/devices/pi-1")["telemetry"]["models"]
        return bool(samples) and samples["digits"]["requests"] == 3

    site.wait("three requests in the telemetry", counted)
    view = site.get("/devices/pi-1")
    assert view["online"]
    assert view["telemetry"]["system"]["memory_total_bytes"] > 2**20
    assert [model["version"] for model in view["models"]] == [1]
    assert view["telemetry"]["models"]["digits"]["accelerator"] == "cpu"
    (model,) = view["models"]
    why = "edgetpu: neither onnxruntime nor a plug-in has it"
    assert model["why"].endswith(f"; on cpu, not on {why}")
    site.kill("pi-1")
    site.wait("the last will", lambda: not site.get("/devices/pi-1")["online"])


def test_the_command_line_shows_and_asks(site: Site) -> None:
    state = site.enrol("pi-1")
    site.start_agent("pi-1")
    deploy(site, "pi-1", 1)
    status = json.loads(site.run("edge-agent", "status", "--state", state, "--json"))
    assert (status["device"], status["phase"], status["ready"]) == ("pi-1", "committed", True)
    assert status["platforms"] == {"digits": "onnxruntime_onnx"}
    assert "digits@1" in site.run("edge-agent", "models", "--state", state)
    np.save(site.root / "x.npy", pixels(2))
    said = site.run("edge-agent", "predict", "--state", state, "digits", site.root / "x.npy")
    assert np.allclose(json.loads(said)["predictions"], pixels(2) @ WEIGHTS + 1)
    made = site.root / "bundles" / "digits-1"
    site.run("edge-agent", "verify", "--state", state, made)
    (made / "onnx" / "model.onnx").write_bytes(b"x")
    refused = site.run("edge-agent", "verify", "--state", state, made, ok=(3,))
    assert "not the file that was signed" in refused
    assert "nobody answers" not in refused


def test_secrets_are_the_devices_alone(site: Site) -> None:
    state = site.enrol("pi-1")
    for path in (state / "identity").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    site.start_agent("pi-1")
    deploy(site, "pi-1", 1)
    key = (state / "identity" / "device.key").read_text().splitlines()[1]
    assert key not in site.log("pi-1") + site.log("fleet")


def agent(*args: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "edge-agent", *args], input=stdin, capture_output=True, text=True, check=False
    )


def test_what_an_operator_can_mend_is_said_with_what_to_do(site: Site, tmp_path: Path) -> None:
    state = site.enrol("pi-1")
    claim = site.fleet("devices", "claim")
    enrol = ("enrol", "--fleet", site.url, "--claim-file", "-", "--device", "pi-2")

    again = agent(*enrol, "--state", state, stdin=claim)
    assert again.returncode == 1
    assert "enrolled already" in again.stderr

    nonsense = agent(*enrol, "--state", tmp_path / "b", stdin="efc1.nonsense")
    assert nonsense.returncode == 3
    assert "not a claim" in nonsense.stderr

    body, _, digest = claim.strip().rpartition(".")
    other = f"{body}.{'0' * len(digest)}"
    stranger = agent(*enrol, "--state", tmp_path / "c", stdin=other)
    assert stranger.returncode != 0
    assert not (tmp_path / "c" / "identity" / "enrolment.json").exists()

    nobody = agent(
        *("enrol", "--fleet", "http://127.0.0.1:1", "--claim-file", "-", "--device", "pi-2"),
        *("--state", tmp_path / "d"),
        stdin=claim,
    )
    assert nobody.returncode == 4
    assert "cannot reach the fleet" in nobody.stderr

    (state / "agent.toml").write_text("[serving]\nlistne = []\n")
    unknown = agent("run", "--state", state)
    assert unknown.returncode == 1
    assert "unknown field 'listne'" in unknown.stderr
    assert "listen" in unknown.stderr.splitlines()[-1]

    (state / "agent.toml").write_text('[runtime]\nengines = ["tensorrt"]\n')
    absent = agent("run", "--state", state)
    assert absent.returncode == 1
    assert "no runtime for models" in absent.stderr


def test_a_taken_port_and_a_taken_state_are_said(site: Site) -> None:
    state = site.enrol("pi-1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", site.ports["pi-1"]))
        taken.listen()
        refused = agent("run", "--state", state)
        assert refused.returncode == 1
        assert str(site.ports["pi-1"]) in refused.stderr
        assert "Traceback" not in refused.stderr
    site.start_agent("pi-1")
    site.wait("the agent", lambda: "ready:" in site.log("pi-1"))
    second = agent("run", "--state", state)
    assert second.returncode == 1
    assert "another agent runs" in second.stderr


def test_no_process_is_left_when_the_agent_is_killed(site: Site) -> None:
    site.enrol("pi-1")
    site.start_agent("pi-1")
    deploy(site, "pi-1", 1)
    process = site.processes.pop("pi-1")
    os.kill(process.pid, signal.SIGKILL)  # the agent alone, not its group
    process.wait()

    def group_is_empty() -> bool:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    site.wait("front and worker to end", group_is_empty, seconds=15)


def fill(path: Path) -> None:
    """Write until the disk refuses."""
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_costs_no_model_and_is_survived(site: Site) -> None:
    """The state lies on a real file system of 2 MiB, which really fills up."""
    state = site.root / "pi-1"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", state], check=True)
    try:
        site.enrol("pi-1")
        site.start_agent("pi-1")
        deploy(site, "pi-1", 1)

        (state / "filler").write_bytes(b"x" * 1_500_000)
        large = site.push(bundle(site, 2, raw=os.urandom(400_000)))
        site.wait("the refusal", lambda: site.get(f"/rollouts/{large}")["by_reason"])
        assert site.get(f"/rollouts/{large}")["by_reason"] == {"no_space": 1}
        assert site.ask("pi-1")[0] == 200

        with pytest.raises(OSError, match="No space left"):
            fill(state / "rest")
        later = site.push(bundle(site, 3))
        site.wait("the complaint", lambda: "cannot write the journal" in site.log("pi-1"))
        assert site.ask("pi-1")[0] == 200
        assert site.version("pi-1") == 1

        (state / "filler").unlink()
        (state / "rest").unlink()
        site.wait("the end", lambda: site.rollout_state(later) == "completed", seconds=90)
        assert site.version("pi-1") == 3
    finally:
        site.kill("pi-1")
        until(lambda: subprocess.run(["umount", state]).returncode == 0)  # its workers end as well
