"""What a build is doing, on a terminal: a bar with the time left, and only if it takes a while.

Steps differ in length, so the time left is a guess from those that are done. Where stderr is no
terminal nothing is shown.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from edgefleet_converter.bench import Progress as Tell

PATIENCE_S: Final = 2.0
_OPENING: Final = 4
_A_VARIANT: Final = 4
"""Quantize, run, compare kernels, measure."""


@contextmanager
def progress_bar(
    console: Console, variants: int, *, patience_s: float = PATIENCE_S
) -> Iterator[Tell]:
    """What a build tells its steps to; the bar comes after a while and goes at the end.

    Args:
        console: of stderr.
        variants: how many are made: what there is to do is reckoned from it.
        patience_s: the while, seconds.
    """
    if not console.is_terminal:
        yield lambda _: None
        return
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left, about"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    task = bar.add_task("starting", total=_OPENING + _A_VARIANT * variants)
    timer = threading.Timer(patience_s, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield _Steps(bar, task)
    finally:
        timer.cancel()
        timer.join()
        bar.stop()


class _Steps:
    """Told what begins: what was begun before is done then."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar = bar
        self._task = task
        self._begun = 0

    def __call__(self, what: str) -> None:
        total = self._bar.tasks[0].total or 0
        self._bar.update(
            self._task,
            description=what,
            completed=self._begun,
            total=max(total, self._begun + 1),
        )
        self._begun += 1
