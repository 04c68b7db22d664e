"""What a command is doing, on a terminal: a bar with the time left, and only if it takes a while.

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
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from edgefleet_converter.bench import Progress as Tell
from edgefleet_converter.boards.places import HERE
from edgefleet_converter.recipe import Measure, Recipe

PATIENCE_S: Final = 2.0
_OPENING: Final = 4
_A_VARIANT: Final = 5
"""Quantize, run, compare kernels, measure, read the operators."""
_A_SEARCH: Final = 14
"""Three graphs, some four batches that are told twice, times, the confirmation."""
_VARIANTS: Final = 2
"""Of a bundle, mostly."""
_A_POINT: Final = 4
"""Prune, quantize, run, measure."""
_A_SWEEP: Final = 12
_HALVINGS: Final = 18


def steps_of_build(recipe: Recipe) -> int:
    """How many steps a build will tell, about."""
    int8 = sum(one.is_int8 for one in recipe.targets)
    extra = recipe.report
    each = (
        (_A_SEARCH if recipe.search.enabled else 0)
        + (_A_SEARCH if extra.sensitivity else 0)
        + (_A_POINT if extra.anchors else 0)
        + (1 if extra.histograms else 0)
    )
    pruned = recipe.prune.max_accuracy_drop is not None
    sweep = _A_POINT * _A_SWEEP if extra.lambda_sweep and recipe.prune.has_threshold else 0
    opening = _OPENING + (_HALVINGS if pruned else 0) + sweep
    return opening + _A_VARIANT * len(recipe.targets) + each * int8


def steps_of_search(recipe: Recipe) -> int:
    """How many steps a search will tell, about."""
    return _OPENING + _A_SEARCH * sum(one.is_int8 for one in recipe.targets)


def steps_of_sweep(points: int) -> int:
    """How many steps a sweep over so many lambdas will tell; 0 stands for the usual number."""
    return _OPENING + _A_POINT * (points or _A_SWEEP)


def steps_of_channels() -> int:
    """How many steps cutting channels will tell: the training, and two models in two precisions."""
    return 1 + 2 * (_OPENING + 5)


def steps_of_bench(wish: Measure, recipe: Recipe | None) -> int:
    """How many steps a bench will tell, about: what is made for it, each board, and on this
    machine each round of each model."""
    models = len(recipe.targets) if recipe else _VARIANTS
    rounds = wish.repeat * models if HERE in (wish.devices or (HERE,)) else 0
    return (steps_of_build(recipe) if recipe else 0) + max(len(wish.devices), 1) + rounds


def steps_of_join(formats: int) -> int:
    """How many steps a join will tell, about."""
    return 1 + _A_VARIANT * formats


@contextmanager
def progress_bar(console: Console, steps: int, *, patience_s: float = PATIENCE_S) -> Iterator[Tell]:
    """What a command tells its steps to; the bar comes after a while and goes at the end.

    Args:
        console: of stderr.
        steps: how many there are to be, about: where more come, the bar gets longer.
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
        _TimeLeft(),
        console=console,
        transient=True,
    )
    task = bar.add_task("starting", total=steps)
    timer = threading.Timer(patience_s, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield _Steps(bar, task)
    finally:
        timer.cancel()
        timer.join()
        bar.stop()


def time_left(elapsed_s: float, done: float, total: float) -> str:
    """What is left if the rest goes as fast; empty while nothing is done.

    >>> time_left(30.0, 2, 5), time_left(100.0, 1, 4), time_left(4.0, 0, 5)
    ('about 45 s left', 'about 5 min left', '')
    """
    if done <= 0:
        return ""
    seconds = elapsed_s / done * max(total - done, 0.0)
    return f"about {seconds:.0f} s left" if seconds < 90 else f"about {seconds / 60:.0f} min left"


class _TimeLeft(ProgressColumn):
    """The guess. Rich has one from the last seconds alone, in which a step may not end."""

    def render(self, task: Task) -> Text:
        return Text(time_left(task.elapsed or 0.0, task.completed, task.total or 0.0))


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
