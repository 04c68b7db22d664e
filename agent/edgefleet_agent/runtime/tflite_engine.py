"""TFLite as a `Session`, on LiteRT or, where only that exists, tflite-runtime.

The only module that imports either. A batch is a resize of the inputs, done only when the shape
changes. int8 and uint8 tensors are taken and given as the model declares them: no silent scaling.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgefleet_agent.runtime.engine import CannotLoad, CannotRun, Tensors
from edgefleet_contract.bundle import TensorSpec
from edgefleet_contract.errors import Malformed


def interpreter_of(engine: str) -> Any:
    """The interpreter class of a runtime.

    Raises:
        ImportError: it is not installed, or does not load on this board.
    """
    if engine == "tflite-runtime":
        from tflite_runtime.interpreter import Interpreter
    else:
        from ai_edge_litert.interpreter import Interpreter
    return Interpreter


class TfliteSession:
    """A TFLite model on the CPU kernels.

    Args:
        raw: the file.
        engine: `litert` or `tflite-runtime`.
        threads: of one inference.

    Raises:
        CannotLoad: not TFLite, or an operator that the runtime lacks.
    """

    def __init__(self, raw: bytes, *, engine: str, threads: int) -> None:
        self._raw, self._engine, self._threads = raw, engine, threads
        if raw[4:8] != b"TFL3":
            raise CannotLoad("not a TFLite file: it has no TFL3 mark")
        try:
            self._interpreter = interpreter_of(engine)(model_content=raw, num_threads=threads)
            self._interpreter.allocate_tensors()
            inputs = self._interpreter.get_input_details()
            outputs = self._interpreter.get_output_details()
        except (ValueError, RuntimeError) as error:
            raise CannotLoad(f"{engine}: {_one_line(error)}") from error
        self.inputs = tuple(_spec(detail) for detail in inputs)
        self.outputs = tuple(_spec(detail) for detail in outputs)
        self._inputs = {detail["name"]: int(detail["index"]) for detail in inputs}
        self._outputs = {detail["name"]: int(detail["index"]) for detail in outputs}
        self._shapes: dict[str, tuple[int, ...] | None] = {
            detail["name"]: tuple(map(int, detail["shape"])) for detail in inputs
        }

    def run(self, feeds: Tensors) -> Tensors:
        """See `Session.run`."""
        try:
            self._fit(feeds)
            for name, index in self._inputs.items():
                self._interpreter.set_tensor(index, feeds[name])
            self._interpreter.invoke()
            return {
                name: np.asarray(self._interpreter.get_tensor(index))
                for name, index in self._outputs.items()
            }
        except (ValueError, RuntimeError) as error:
            raise CannotRun(f"{self._engine}: {_one_line(error)}") from error

    def fresh(self) -> TfliteSession:
        """See `Session.fresh`.

        `reset_all_variables` of the runtime leaves resource variables as they are, so a session
        that starts anew is a new one: 0.4 ms for a model of 56 kB.
        """
        try:
            return TfliteSession(self._raw, engine=self._engine, threads=self._threads)
        except CannotLoad as error:
            raise CannotRun(str(error)) from error

    def _fit(self, feeds: Tensors) -> None:
        changed = {name for name in self._inputs if feeds[name].shape != self._shapes[name]}
        if not changed:
            return
        for name in changed:
            self._shapes[name] = None  # neither the old nor the new until allocation went well
            self._interpreter.resize_tensor_input(self._inputs[name], list(feeds[name].shape))
        self._interpreter.allocate_tensors()
        for name in changed:
            self._shapes[name] = feeds[name].shape


def _spec(detail: dict[str, Any]) -> TensorSpec:
    dtype = np.dtype(detail["dtype"])
    signature = detail.get("shape_signature")
    shape = detail["shape"] if signature is None or not len(signature) else signature
    try:
        return TensorSpec(
            str(detail["name"]),
            "string" if dtype.kind == "S" else dtype.name,
            tuple(int(size) for size in shape),
        )
    except Malformed as error:
        raise CannotLoad(error.message) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
