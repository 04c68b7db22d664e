"""What runs in `edge-agent.service` on the machine of `tests.system.memory`, in the agent's place.

Takes over the control group of the unit as the agent does, puts a child into one of its own, and
tries to write beside it. Prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from edgefleet_agent.adapters.systemd import Notifier
from edgefleet_agent.runtime.cgroups import take_over

BOUND = 2**24


def look() -> dict[str, object]:
    """What could be done, and what could not."""
    groups = take_over()
    found: dict[str, object] = {"uid": os.geteuid(), "bounds": groups and groups.bounds}
    if groups is not None:
        with subprocess.Popen(["/bin/sleep", "9"]) as child:
            leaf = groups.place(child.pid, "worker digits digits@1", memory_bytes=BOUND)
            place = Path(f"/proc/{child.pid}/cgroup").read_text().strip()
            bound = Path("/sys/fs/cgroup", place[4:], "memory.max").read_text()
            found |= {"place": place.replace(str(child.pid), "PID"), "bound": int(bound)}
            child.kill()
        if leaf is not None:
            leaf.remove()
        found["left"] = sorted(path.name for path in groups.folder.iterdir() if path.is_dir())
    try:
        Path("/sys/fs/cgroup/beside").mkdir()
    except OSError as error:
        found["beside"] = error.strerror
    return found


def main() -> None:
    """See the module."""
    print("UNIT " + json.dumps(look()), flush=True)
    Notifier().send("READY=1")
    time.sleep(3)


if __name__ == "__main__":
    sys.exit(main())
