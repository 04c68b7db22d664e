"""`python -m tests.fuzz SECONDS [TARGET]`: the targets under atheris, each in a process of its own.

atheris is no dependency of the tests: `make fuzz` installs it. A fault ends the run with what
raised it, and leaves its bytes as `crash-…` in the current folder.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = (
    *("order", "order_body", "manifest", "model_signature"),
    *("strict_json", "policy", "metadata"),
)


def fuzz(name: str, seconds: str) -> None:
    """Run one target in this process; never returns."""
    import atheris

    with atheris.instrument_imports(include=["edgefleet_contract", "edgefleet_agent", "tuf"]):
        from tests.fuzz import targets

    with tempfile.TemporaryDirectory() as corpus:
        for number, raw in enumerate(targets.seeds(name)):
            (Path(corpus) / str(number)).write_bytes(raw)
        limits = [
            f"-max_total_time={seconds}",
            "-max_len=8192",
            "-timeout=10",
            "-rss_limit_mb=1024",
        ]
        atheris.Setup([name, *limits, corpus], lambda raw: targets.attempt(name, raw))
        atheris.Fuzz()


def main(seconds: str, *names: str) -> int:
    """All targets, or those named, one after another; 1 where one found a fault."""
    for name in names or NAMES:
        command = [sys.executable, "-m", "tests.fuzz", "--one", name, seconds]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        last = next((line for line in reversed(done.stderr.splitlines()) if "DONE" in line), "")
        print(f"{name}: {'nothing found' if done.returncode == 0 else 'FAULT'} {last}")
        if done.returncode:
            print(done.stdout[-4_000:], done.stderr[-4_000:], file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        fuzz(*sys.argv[2:4])
    else:
        sys.exit(main(*sys.argv[1:]))
