"""Hardware classes: kinds of boards that a bundle is for, and what their runtimes can do.

A class is finer than the `hw` of the manifest, which is the device's own word for its processor
(`arm64`, `armhf`, `x86-64`): the desk checks variants against classes, and stamps their `hw`.
The built-in classes have the least memory that the board is sold with, 64-bit systems, and the
oldest runtimes that the agent is installed with. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from edgefleet_contract.bundle import Format, is_name, parse_version
from edgefleet_contract.errors import Malformed
from edgefleet_converter.targets import Target

FORMATS: Final = {
    "onnxruntime": Format.ONNX,
    "litert": Format.TFLITE,
    "tflite-runtime": Format.TFLITE,
}
"""The runtimes that agents have adapters for."""

PROCESSORS: Final = ("arm64", "armhf", "x86-64")


@dataclass(frozen=True, slots=True)
class HardwareClass:
    """A kind of board.

    `runtimes` are those installed, with their versions. `max_opset` and `max_ir` bound what its
    ONNX runtime loads, `operators` are all that its build has; 0 and none: no bound of its own.
    `without` are operators that it lacks. `memory_mib` 0: not checked.
    """

    hw: str
    runtimes: dict[str, str]
    memory_mib: int = 0
    max_opset: int = 0
    max_ir: int = 0
    operators: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not is_name(self.hw):
            raise Malformed(f"hw: {self.hw[:80]!r}; agents say {', '.join(PROCESSORS)}")
        if not self.runtimes:
            raise Malformed("runtimes: names none")
        for name, version in self.runtimes.items():
            if name not in FORMATS:
                raise Malformed(f"runtimes: {name[:80]!r} is none of {', '.join(FORMATS)}")
            parse_version(version)
        if min(self.memory_mib, self.max_opset, self.max_ir) < 0:
            raise Malformed("memory_mib, max_opset and max_ir: 0 or more")

    def runs(self, kind: Format) -> bool:
        """Whether it has a runtime for such files at all."""
        return any(FORMATS[name] is kind for name in self.runtimes)


_RUNTIMES: Final = {"onnxruntime": "1.19.0", "litert": "2.0.0"}
BOARDS: Final = {
    "rpi3": HardwareClass("arm64", _RUNTIMES, 1024),
    "rpi4": HardwareClass("arm64", _RUNTIMES, 1024),
    "rpi5": HardwareClass("arm64", _RUNTIMES, 1024),
    "zero2w": HardwareClass("arm64", _RUNTIMES, 512),
    "x86-64": HardwareClass("x86-64", _RUNTIMES),
}


@dataclass(frozen=True, slots=True)
class Hardware:
    """The classes that a bundle is for; none: any board. `define` adds some, or replaces them."""

    classes: tuple[str, ...] = ()
    define: dict[str, HardwareClass] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = self.known
        for name in self.classes:
            if name not in known:
                raise Malformed(
                    f"classes: {name[:80]!r} is not known", hint=f"known: {', '.join(known)}"
                )
        if len(set(self.classes)) != len(self.classes):
            raise Malformed("classes: names one twice")

    @property
    def known(self) -> dict[str, HardwareClass]:
        """All classes by name."""
        return BOARDS | self.define

    @property
    def wanted(self) -> dict[str, HardwareClass]:
        """Those that the bundle is for, in the order of the recipe."""
        return {name: self.known[name] for name in self.classes}

    def without_variant(self, targets: tuple[Target, ...]) -> str:
        """A class that has no runtime for any of the targets; empty if there is none."""
        kinds = {target.kind for target in targets}
        lost = (n for n, one in self.wanted.items() if not any(one.runs(kind) for kind in kinds))
        return next(lost, "")
