"""Warns where models together want more threads than there are cores: all get slower then."""

from __future__ import annotations

import logging
import os

_log = logging.getLogger(__name__)


def excess(threads: dict[str, int], cores: int) -> str:
    """What is wrong with so many threads a slot on so many cores; empty where nothing is. Pure."""
    total = sum(threads.values())
    if total <= cores:
        return ""
    each = ", ".join(f"{slot} {count}" for slot, count in sorted(threads.items()))
    return f"models have {total} threads ({each}), the board {cores} cores: set fewer"


class ThreadWatch:
    """Says so once, and again where the slots or their threads are others than then."""

    def __init__(self) -> None:
        self._said = ""

    def look(self, threads: dict[str, int]) -> None:
        """Look at the threads of every slot that serves."""
        found = excess(threads, len(os.sched_getaffinity(0)))
        if found and found != self._said:
            _log.warning("%s", found)
        self._said = found
