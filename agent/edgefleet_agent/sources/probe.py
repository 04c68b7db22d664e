"""Says which kinds there are and whether this board can use them: `edge-agent sources`.

A plug-in says so itself, so its code runs: in a process of its own, with no more of the environment
than a source has, and not for ever. Run as `python -m edgefleet_agent.sources.probe GROUP KIND`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Final

from edgefleet_agent.runtime import child
from edgefleet_agent.sources import kinds
from edgefleet_agent.sources.config import IN_AGENT
from edgefleet_contract.errors import OperatorError

_PATIENCE_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of source or sink: the package it is from, and what speaks against it (or nothing)."""

    use: str
    name: str
    package: str
    trouble: str


def find() -> list[Kind]:
    """All kinds, those built in first."""
    found = [Kind("source", IN_AGENT, "built in", "")]
    for use, group in (("source", kinds.SOURCES), ("sink", kinds.SINKS)):
        found += [Kind(use, name, "built in", ask(group, name)) for name in kinds.BUILT_IN[group]]
        for name, point in sorted(kinds.plugins(group).items()):
            if not kinds.is_built_in(group, name) and (use, name) != ("source", IN_AGENT):
                package = point.dist.name if point.dist is not None else point.value
                found.append(Kind(use, name, package, ask(group, name)))
    return found


def ask(group: str, name: str) -> str:
    """Why a kind cannot be used; empty where it can."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __spec__.name, group, name],
            env=child.environment(dict(os.environ), threads=1),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"gave no answer within {_PATIENCE_S:g} s"
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        return f"died ({done.returncode}): {ascii(last[:200])[1:-1]}"
    return ascii(done.stdout.strip()[:300])[1:-1]


def main(argv: list[str]) -> None:
    """Print what speaks against one kind."""
    try:
        trouble = kinds.load(argv[1], argv[2]).available()
    except OperatorError as error:
        trouble = error.message
    print(trouble)  # noqa: T201 - its result


if __name__ == "__main__":
    main(sys.argv)
