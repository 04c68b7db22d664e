"""What a step is: settings that are decoded once, a file that is parsed once, and a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

from edgefleet_processing.tensors import Array

Run: TypeAlias = Callable[[tuple[Array, ...]], tuple[Array, ...]]
"""A step that is ready: tensors in, tensors out. It changes nothing of what it takes."""

ONE: Final = range(1, 2)
MANY: Final = range(1, 65)


class File(StrEnum):
    """Whether a step needs a file of the bundle."""

    NO = "no"
    MAY = "may"
    MUST = "must"


@dataclass(frozen=True, slots=True)
class Step:
    """An operation: the type of its settings, and what makes it ready.

    `prepare` gets an instance of `settings` and the bytes of the file, None where there is none;
    it raises `Malformed`. `takes` and `gives` are how many tensors a node may name: what a node
    does not name at the end of `gives` is dropped.
    """

    settings: type
    prepare: Callable[[Any, bytes | None], Run]
    takes: range = ONE
    gives: range = ONE
    file: File = File.NO


def plain(settings: type, function: Callable[[Array, Any], Array]) -> Step:
    """The step of a function of one tensor and settings, with nothing to make ready."""

    def prepare(chosen: object, _: bytes | None) -> Run:
        return lambda taken: (function(taken[0], chosen),)

    return Step(settings, prepare)
