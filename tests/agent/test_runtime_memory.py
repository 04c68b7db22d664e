"""Memory is bounded worker by worker: who eats it pays, and nobody beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import psutil
import pytest

from edgefleet_agent.runtime import child
from edgefleet_agent.runtime.cgroups import Cgroups, take_over
from edgefleet_agent.runtime.memory import mounts
from edgefleet_agent.runtime.room import MIB, worker_bound
from edgefleet_agent.serving.config import ModelConfig
from edgefleet_contract.bundle import Limits
from tests.agent.hosting import Load, running, until
from tests.agent.models import asked_spec, linear_spec

ROOT = Path(__file__).parents[2]
ZERO = json.dumps({"instances": np.zeros((1, 64)).tolist()}).encode()
PREDICT = "/v1/models/digits:predict"
EATS = "/v1/models/busy:predict"


def adjusted(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_the_kernel_ends_a_trial_before_a_shadow_before_a_worker_before_the_rest(
    tmp_path: Path,
) -> None:
    with running() as here:
        assert here.do(here.host.activate((linear_spec(tmp_path, 1),))) is None
        asked = {"seconds": 30.0, "share": 1.0, "min_requests": 0, "max_cpu_share": 0.1}
        shadow = here.host.shadow(linear_spec(tmp_path, 3), **asked)  # type: ignore[arg-type] # as it takes them
        shadowing = asyncio.run_coroutine_threadsafe(shadow, here.loop)
        hang = asked_spec(tmp_path, "busy.onnx", 10_000_000)
        trial = here.host.trial(hang, timeout_s=30)
        trying = asyncio.run_coroutine_threadsafe(trial, here.loop)
        names = {"edge-trial", "edge-shadow", "edge-worker", "edge-front"}
        until(lambda: names <= set(found()) and found()["edge-trial"] == child.TRIAL_ADJ)
        until(lambda: found()["edge-shadow"] == child.SHADOW_ADJ)  # it has its name before that
        seen = found()
        trying.cancel()
        shadowing.cancel()
        until(lambda: not {"edge-trial", "edge-shadow"} & set(found()))
    agent = adjusted(os.getpid())
    assert agent == seen["edge-front"] == seen.get("edge-zygote", agent)
    assert agent < seen["edge-worker"] < seen["edge-shadow"] < seen["edge-trial"]


def found() -> dict[str, int]:
    """Our processes by name, and where each stands in line."""
    seen = {}
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error, OSError):
            seen[process.name()] = adjusted(process.pid)
    return seen


@pytest.mark.parametrize("zygote", [True, False], ids=["forked", "started"])
@pytest.mark.parametrize("says", ["the publisher", "the operator"])
def test_a_request_that_eats_memory_costs_its_own_model_and_no_other_a_request(
    tmp_path: Path, says: str, zygote: bool
) -> None:
    """`greedy` takes as many MiB as it is asked for."""
    limits = Limits(ram_mib=40) if says == "the publisher" else None
    models = {} if limits else {"busy": ModelConfig(memory_mib=336)}
    with running(zygote=zygote, models=models) as here:
        eater = asked_spec(tmp_path, "greedy.onnx", 10, limits=limits)
        assert here.do(here.host.activate((linear_spec(tmp_path, 1), eater))) is None
        pid = here.host.worker_pids["busy"]
        bound = worker_bound(40 if limits else 0, 0 if limits else 336)
        assert psutil.Process(pid).rlimit(resource.RLIMIT_DATA) == (bound, bound)
        other = psutil.Process(here.host.worker_pids["digits"])
        with Load(here, PREDICT, ZERO) as load:
            load.more(50)
            for _ in range(3):
                answer = here.ask("POST", EATS, {"instances": [[4_000]]})
                assert answer.status in (400, 500, 503), answer
            load.more(50)
        assert load.failures == []
        assert other.is_running()
        assert here.stats("digits").restarts == 0
        until(lambda: here.stats("busy").ready)
        assert here.ask("POST", EATS, {"instances": [[10]]}).json() == {"predictions": [[10.0]]}


def test_a_model_without_an_envelope_is_not_bounded(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        process = psutil.Process(here.host.worker_pids["digits"])
        assert process.rlimit(resource.RLIMIT_DATA) == (-1, -1)


# --- control groups: what is written -------------------------------------------------------------


def lay_out(folder: Path, *, controllers: str, delegated: bool = True) -> Path:
    """A folder with the files that the kernel puts into a group."""
    group = folder / "edge-agent.service"
    group.mkdir()
    (group / "cgroup.controllers").write_text(f"{controllers}\n")
    (group / "cgroup.procs").write_text("11\n12\n")
    if delegated:
        try:
            os.setxattr(group, "user.delegate", b"1")
        except OSError:
            pytest.skip("this file system has no attributes as control groups have them")
    return group


def test_a_child_has_a_group_with_its_bound_and_no_swap(tmp_path: Path) -> None:
    group = lay_out(tmp_path, controllers="cpu memory pids")
    groups = take_over([group])
    assert groups is not None
    assert (group / "cgroup.subtree_control").read_text() == "+memory"
    assert (group / "agent" / "cgroup.procs").read_text() == "12"  # the kernel keeps both
    groups.place(77, "worker digits digits@7", memory_bytes=5 * MIB)
    groups.place(78, "trial digits@8")
    leaf = group / "worker-digits-digits@7-77"
    wrote = {path.name: path.read_text() for path in leaf.iterdir()}
    assert wrote == {
        "memory.max": str(5 * MIB),
        "memory.oom.group": "1",
        "memory.swap.max": "0",
        "cgroup.procs": "77",
    }
    assert (group / "trial-digits@8-78" / "memory.max").read_text() == "max"


def test_without_the_memory_controller_children_have_groups_without_bounds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    group = lay_out(tmp_path, controllers="cpu pids")
    groups = take_over([group])
    assert groups is not None
    assert not groups.bounds
    groups.place(77, "worker digits digits@7", memory_bytes=5 * MIB)
    assert [path.name for path in (group / "worker-digits-digits@7-77").iterdir()] == [
        "cgroup.procs"
    ]
    assert [record.message for record in caplog.records] == [
        "the memory controller is not delegated: a worker's memory has no such bound"
    ]


def test_what_is_not_delegated_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if os.geteuid():
        pytest.skip("a folder of one's own is taken for delegated")
    caplog.set_level(logging.INFO)
    group = lay_out(tmp_path, controllers="memory", delegated=False)
    before = sorted(group.iterdir())
    assert take_over([group]) is None
    assert take_over([]) is None
    assert sorted(group.iterdir()) == before
    assert "no control group is delegated" in caplog.text


def test_a_group_that_cannot_be_made_costs_no_worker(tmp_path: Path) -> None:
    groups = Cgroups(tmp_path / "gone", bounds=True)
    with running(groups=groups) as here:
        assert here.do(here.host.activate((linear_spec(tmp_path, 1),))) is None
        assert here.predict("digits", ZERO).status == 200


# --- control groups: the kernel's ----------------------------------------------------------------

AGENT = """
import asyncio, json, os, sys
from pathlib import Path
import tests.agent.models as m
from edgefleet_agent.runtime.cgroups import take_over
from edgefleet_agent.runtime.host import LocalHost
from edgefleet_agent.serving.config import ServingConfig

Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
groups = take_over()

def place(pid):
    line = next(l for l in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if l[:3] == "0::")
    return line[3:].rpartition("/")[2]

async def main():
    config = ServingConfig(listen=("127.0.0.1:0",))
    async with LocalHost(config, groups=groups) as host:
        spec = m.linear_spec(Path(sys.argv[2]))
        report = await host.trial(spec, timeout_s=60)
        assert await host.activate((spec,)) is None
        pid = host.worker_pids["digits"]
        said = {"agent": place(os.getpid()), "front": place(host.front_pid)}
        said |= {"zygote": place(host.zygote_pid), "worker": place(pid), "pid": pid}
        said |= {"taken": groups is not None, "tried": report.vectors}
        said["leaves"] = sorted(p.name for p in Path(sys.argv[1]).iterdir() if p.is_dir())
        print(json.dumps(said), flush=True)
        if sys.argv[3:]:
            os.kill(os.getpid(), 9)

asyncio.run(main())
"""


@pytest.fixture
def tree() -> Iterator[Path]:
    """A real control group of version 2, delegated as systemd does it; needs root."""
    folder = Path("/nowhere")
    for mount, _ in mounts("cgroup2"):
        folder = mount / f"edgefleet-{uuid4().hex}"
    try:
        folder.mkdir()
    except OSError as error:
        if os.environ.get("CI") and not os.geteuid():
            pytest.fail(f"no control group can be made: {error}")
        pytest.skip(f"no control group can be made: {error}")
    os.setxattr(folder, "user.delegate", b"1")
    yield folder
    until(lambda: not any(path.read_text() for path in folder.rglob("cgroup.procs")))
    for path in folder.iterdir():
        if path.is_dir():
            path.rmdir()
    folder.rmdir()


def live(tree: Path, folder: Path, *more: str) -> dict[str, Any]:
    """An agent's life in this group; what it said of where everybody was."""
    done = subprocess.run(
        [sys.executable, "-c", AGENT, str(tree), str(folder), *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_each_child_is_in_a_real_group_of_its_own_which_goes_with_it(
    tree: Path, tmp_path: Path
) -> None:
    said = live(tree, tmp_path)
    assert (said["agent"], said["front"], said["zygote"]) == ("agent", "agent", "agent")
    assert said["worker"] == f"worker-digits-digits@1-{said['pid']}"
    assert said["leaves"] == ["agent", said["worker"]]  # the trial's is gone with it
    assert sorted(path.name for path in tree.iterdir() if path.is_dir()) == ["agent"]


def test_what_an_agent_that_was_killed_left_is_cleared_away_by_the_next(
    tree: Path, tmp_path: Path
) -> None:
    left = live(tree, tmp_path, "killed")["worker"]
    until(lambda: not any(path.read_text() for path in tree.rglob("cgroup.procs")))
    assert (tree / left).is_dir()
    said = live(tree, tmp_path)
    assert said["leaves"] == ["agent", said["worker"]]
    assert not (tree / left).exists()


def test_in_a_real_group_that_is_not_delegated_everything_works_without(
    tree: Path, tmp_path: Path
) -> None:
    os.removexattr(tree, "user.delegate")
    said = live(tree, tmp_path)
    assert not said["taken"]
    assert said["worker"] == tree.name
    assert said["leaves"] == []
