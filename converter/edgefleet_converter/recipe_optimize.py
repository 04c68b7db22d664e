"""The wishes about passes over a finished graph: the `[optimize]` table of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgefleet_contract.bundle import Format
from edgefleet_converter.hardware import Hardware
from edgefleet_converter.targets import Target


@dataclass(frozen=True, slots=True)
class Optimize:
    """Passes by name: `slim` drops dead and constant nodes; `offline` is the hardware class whose
    passes of onnxruntime are run ahead, empty for none; `mapped_weights` puts weights into a file
    of their own, which devices map."""

    slim: bool = True
    offline: str = ""
    mapped_weights: bool = False


def optimize_checks(
    wish: Optimize, targets: Sequence[Target], hardware: Hardware
) -> tuple[tuple[str, bool], ...]:
    """What must hold, and the words for where it does not."""
    written = [one for one in targets if one.kind is Format.ONNX and not one.is_as_is]
    foreign = [name for name, one in hardware.wanted.items() if one.hw != wish.offline]
    known = ("arm64", "armhf", "x86-64")
    return (
        (f"optimize.offline: one of {', '.join(known)}", wish.offline in ("", *known)),
        (
            "optimize.offline: no target is an ONNX file that is written here",
            not wish.offline or bool(written),
        ),
        (
            f"optimize.offline: a graph for {wish.offline} does not run on {', '.join(foreign)}",
            not wish.offline or not foreign or len(written) < len(targets),
        ),
        (
            "optimize.mapped_weights: no target is an ONNX file that is written here",
            not wish.mapped_weights or bool(written),
        ),
    )
