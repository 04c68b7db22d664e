"""What a board is and can run, as its device tells it when it enrols and in its state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edgefleet_contract.errors import Malformed

MAX_NAMED: Final = 64
"""Features, and accelerators, that a board names."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a board is and can run; `engines` maps a runtime's name to its version.

    Those with a default are not told by older agents: `hardware_class` (boards.py), the model of
    the processor and those of its `features` that models make use of, the size of the disk with
    the state, the kernel, and the `accelerators` that models may run on.
    """

    hw: str
    arch: str
    board: str
    os: str
    python: str
    cpus: int
    memory_bytes: int
    engines: dict[str, str]
    hardware_class: str = ""
    cpu: str = ""
    features: tuple[str, ...] = ()
    disk_bytes: int = 0
    kernel: str = ""
    accelerators: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, names in (("features", self.features), ("accelerators", self.accelerators)):
            if len(names) > MAX_NAMED or any(len(name) > 64 for name in names):
                raise Malformed(
                    f"{what}: more than {MAX_NAMED} names, or one of over 64 characters"
                )
