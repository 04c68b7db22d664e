"""Whether a new version fits into memory beside what it is to replace. Core: values in, a mode out.

What a model takes is what its trial measured, else its signed limit on this board, else its file
times a factor. What there is, is what the board or the agent's control group can still give.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MIB: Final = 1024 * 1024

FILE_FACTOR: Final = 3.0
"""Peak memory of a load over the model's file: 2.5 to 3.2 for ONNX files of 4 to 100 MB, since the
file, the weights and their rearranged copies are there at once."""
PROCESS_MIB: Final = 48
"""A process of ours without a model: 22 MiB of a fork's own, 42 of one that was started."""
MARGIN_MIB: Final = 64
"""What must stay free besides: for bodies, for hashing, and for all that the board does else."""


class SwapMode(StrEnum):
    """How a version is replaced."""

    AVAILABILITY_PRESERVING = "availability-preserving"
    """The new one is loaded beside the old one."""
    RESOURCE_PRESERVING = "resource-preserving"
    """The old one ends before the new one is loaded; requests wait, or are told to come back."""


SLACK_FACTOR: Final = 2.0
SLACK_MIB: Final = 256
"""A worker may have so many times its signed limit, and this: the runtime and its threads' stacks
(53 to 87 MiB of addresses at rest), a request and an answer of any size, what the allocator has not
given back yet. It is there to stop a leak, not to judge: that is the trial's."""


@dataclass(frozen=True, slots=True)
class Appetite:
    """What is known of a model's memory: the size of its file, bytes; its signed limit and what its
    trial measured, MiB, 0 where there is none."""

    file_bytes: int
    limit_mib: float = 0.0
    measured_mib: float = 0.0

    @property
    def needs_bytes(self) -> int:
        """What a process that loads it takes."""
        known = self.measured_mib or self.limit_mib
        model = known * MIB if known else self.file_bytes * FILE_FACTOR
        return round(model) + PROCESS_MIB * MIB


def worker_bound(limit_mib: int, configured_mib: int) -> int:
    """The most private memory that a worker may have, bytes: what the operator says, else what the
    signed limit leaves room for; 0: it is not bounded."""
    if configured_mib:
        return configured_mib * MIB
    return round(limit_mib * SLACK_FACTOR + SLACK_MIB) * MIB if limit_mib else 0


def choose_mode(appetites: tuple[Appetite, ...], available_bytes: int) -> SwapMode:
    """How these are to be loaded, all of them at once, where so much memory is available."""
    needs = sum(appetite.needs_bytes for appetite in appetites)
    if needs + MARGIN_MIB * MIB <= available_bytes:
        return SwapMode.AVAILABILITY_PRESERVING
    return SwapMode.RESOURCE_PRESERVING
