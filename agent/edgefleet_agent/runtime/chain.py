"""Which accelerators a model is tried on, in which order, and what each is set up with. Pure.

What is named comes first, the processor alone is always the last, so that a board whose
accelerator is gone still serves. With nothing named, the runtime is left as it comes: a chain of
one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

CPU: Final = "cpu"
"""The runtime's own kernels and nothing else."""
XNNPACK: Final = "xnnpack"
"""TFLite as it comes: XNNPACK for what it takes, the runtime's own kernels for the rest."""

ON_THE_PROCESSOR: Final = frozenset({CPU, XNNPACK})

_AS_IT_COMES: Final = {"onnxruntime": CPU}


@dataclass(frozen=True, slots=True)
class AcceleratorSetup:
    """A `[runtime.setup.<name>]` table: what one accelerator is given.

    `library`: of an external TFLite delegate, which makes the name one. `options` are its own.
    """

    library: str = ""
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Accelerators:
    """What a model may run on.

    `named` by the operator, the preferred first. `proven`: the one on which this model answered
    its golden vectors before, in this life of the agent; empty: none did.
    """

    named: tuple[str, ...] = ()
    setup: dict[str, AcceleratorSetup] = field(default_factory=dict)
    proven: str = ""

    def chain(self, engine: str) -> tuple[str, ...]:
        """What to try on a runtime, the first first; never empty."""
        own = _AS_IT_COMES.get(engine, XNNPACK)
        if not self.named:
            return (own,)
        order = tuple(dict.fromkeys((*self.named, own, CPU)))
        return order[: order.index(CPU) + 1]

    def is_proven(self, name: str) -> bool:
        """Whether the model need not be held against its golden vectors on this one again.

        Where nothing is named there is nothing to choose: what the trial ran on is what serves.
        """
        return not self.named or name == self.proven


def platform(engine: str, format_: str, accelerator: str) -> str:
    """What a model runs on, in one word: `litert_tflite`, `litert_tflite_edgetpu`."""
    if accelerator in ON_THE_PROCESSOR:
        return f"{engine}_{format_}"
    return f"{engine}_{format_}_{accelerator}"
