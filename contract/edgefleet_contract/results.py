"""What models said of what sources found [wire-11]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class ResultTensor:
    """One output of a result: numbers row by row, or texts."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: tuple[float, ...] = ()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What a model said of what a source found [wire-11.2].

    `cause` says why it is published: `first`, `class`, `number`, `text`, `shape`, `time` or
    `every`.
    `tops` is the index of the largest score in each row, where the outputs look like scores.
    `boot_id` and `seq` name it: one that comes twice is the same. `dropped` results of the source
    were lost before it, since the agent started.
    """

    SCHEMA: ClassVar[str] = "edgefleet.result/1"

    device: str
    boot_id: str
    seq: int
    ts: int
    source: str
    slot: str
    version: str
    cause: str
    outputs: tuple[ResultTensor, ...]
    tops: tuple[int, ...] = ()
    metadata: dict[str, str] | None = None
    dropped: int = 0
    schema: str = SCHEMA
