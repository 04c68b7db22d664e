"""A worker that loads beside others: it lets them run first, and comes forward again."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from edgefleet_agent.ports import ModelSpec
from edgefleet_agent.runtime.yielding import can_return, yielding
from tests.agent.hosting import running, until
from tests.agent.models import linear_spec

THREADED = """
import threading, sys
print("up", flush=True)
sys.stdin.readline()
threading.Thread(target=threading.Event().wait, daemon=True).start()
print("two", flush=True)
sys.stdin.readline()
"""

# What a child without rights sees: as nobody, with this RLIMIT_NICE.
WITHOUT_RIGHTS = """
import json, os, resource, subprocess, sys
from edgefleet_agent.runtime.yielding import can_return, yielding
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NICE, (limit, limit))
if os.geteuid() == 0:
    os.setuid(65534)
with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
    def seen():
        return [os.getpriority(os.PRIO_PROCESS, child.pid), os.sched_getscheduler(child.pid)]
    with yielding(child.pid):
        during = seen()
    print(json.dumps({"can": can_return(0), "during": during, "after": seen()}))
"""


def priorities(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in tasks}


@pytest.mark.skipif(not can_return(0), reason="needs RLIMIT_NICE or CAP_SYS_NICE")
def test_a_process_that_yields_comes_forward_with_the_threads_that_it_started_meanwhile() -> None:
    command = [sys.executable, "-c", THREADED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        before = priorities(child.pid)
        with yielding(child.pid):
            child.stdin.write(b"\n")
            child.stdin.flush()
            child.stdout.readline()
            until(lambda: len(list(Path(f"/proc/{child.pid}/task").iterdir())) == 2)
            assert priorities(child.pid) == {19}
        assert priorities(child.pid) == before
        with yielding(child.pid) as forward:
            forward()
            assert priorities(child.pid) == before
        child.communicate(b"\n")


def mine() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


def without_rights(limit: int) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RIGHTS, str(limit)],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_without_rights_it_becomes_a_batch_process_since_it_could_not_come_back() -> None:
    assert without_rights(0) == {
        "can": False,
        "during": [mine(), os.SCHED_BATCH],
        "after": [mine(), os.SCHED_OTHER],
    }


def test_the_limit_that_the_unit_sets_is_enough_to_come_back() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NICE)
    try:
        resource.setrlimit(resource.RLIMIT_NICE, (soft, max(hard, 20)))
    except ValueError:
        pytest.skip("needs a hard RLIMIT_NICE of 20, or CAP_SYS_RESOURCE to set it")
    assert without_rights(20) == {
        "can": True,
        "during": [19, os.SCHED_OTHER],
        "after": [mine(), os.SCHED_OTHER],
    }


def test_a_process_that_has_ended_does_not_trouble_who_lets_it_yield() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pass
    with yielding(child.pid) as forward:
        forward()


def test_after_a_swap_the_new_worker_has_the_priority_of_the_old_one(tmp_path: Path) -> None:
    def activate(spec: ModelSpec) -> set[int]:
        assert here.do(here.host.activate((spec,))) is None
        (pid,) = here.host.worker_pids.values()
        assert os.sched_getscheduler(pid) == os.SCHED_OTHER
        return priorities(pid)

    with running() as here:
        first = activate(linear_spec(tmp_path, 1))
        assert activate(linear_spec(tmp_path, 2)) == first
