"""What a runtime looks like to the rest of the agent: a session over named tensors.

Adapters (`onnx_engine`, `tflite_engine`) translate their runtime's exceptions into these two and
nothing else crosses. NumPy is imported for types only: this module is read before one is chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from edgefleet_contract.bundle import TensorSpec, Variant

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"
Tensors: TypeAlias = "dict[str, Array]"
Weights: TypeAlias = "dict[str, bytes | memoryview]"
"""Bytes of signed files that a model's tensors refer to, by the file's name."""


class CannotLoad(Exception):
    """The runtime does not take this model; the message says why."""


class CannotRun(Exception):
    """The runtime refused or failed an inference. `input_is_to_blame` if it said so itself."""

    def __init__(self, message: str, *, input_is_to_blame: bool = False) -> None:
        super().__init__(message)
        self.input_is_to_blame = input_is_to_blame


class Session(Protocol):
    """A loaded model. Not thread-safe: one worker, one thread."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the model takes; -1 where a dimension may vary."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the model gives."""
        ...

    def run(self, feeds: Tensors) -> Tensors:
        """All outputs by name, in the dtypes that the model declares.

        Args:
            feeds: every input by name, in its declared dtype; strings are object arrays.

        Raises:
            CannotRun: the runtime said no.
        """
        ...

    def fresh(self) -> Session:
        """The same model in a session that has run nothing; itself where nothing is kept.

        Raises:
            CannotRun: the runtime has no room for one more.
        """
        ...


def difference(session: Session, variant: Variant) -> str:
    """How the model's tensors differ from what the variant declares; empty if they do not.

    Names, dtypes and ranks must agree, as sets; sizes are left to the golden vectors.
    """
    for kind, declared, found in (
        ("input", variant.inputs, session.inputs),
        ("output", variant.outputs, session.outputs),
    ):
        wanted = {spec.name: (spec.dtype, len(spec.shape)) for spec in declared}
        present = {spec.name: (spec.dtype, len(spec.shape)) for spec in found}
        for name in sorted(wanted.keys() | present.keys()):
            if name not in present:
                return f"declared {kind} {name!r} is not in the model (has {_names(present)})"
            if name not in wanted:
                return f"the model has an {kind} {name!r} that is not declared"
            if wanted[name] != present[name]:
                declared_as, has = _say(wanted[name]), _say(present[name])
                return f"{kind} {name!r} is declared as {declared_as}, the model has {has}"
    return ""


def _names(found: dict[str, tuple[str, int]]) -> str:
    return ", ".join(repr(name) for name in sorted(found)) or "none"


def _say(kind: tuple[str, int]) -> str:
    return f"{kind[0]} of rank {kind[1]}"
