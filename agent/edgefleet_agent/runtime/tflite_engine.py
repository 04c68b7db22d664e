"""TFLite as a `Session`, on LiteRT or, where only that exists, tflite-runtime.

The only module that imports either. Another shape is a resize of the inputs, done only when it
changes. Text is UTF-8 to the runtime and `str` to us. int8 and uint8 tensors are taken and given as
the model declares them: no silent scaling.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Final

import numpy as np

from edgefleet_agent.runtime.engine import Array, CannotLoad, CannotRun, Tensors
from edgefleet_contract.bundle import TensorSpec
from edgefleet_contract.errors import Malformed

DELEGATES: Final = {"edgetpu": "libedgetpu.so.1"}
"""The delegates that have a name, and the shared libraries that they are."""


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


def load_delegate(engine: str, library: str, options: dict[str, str]) -> Any:
    """An external delegate from a shared library, by name or path.

    Raises:
        CannotLoad: the library is not there, or says that it cannot be used here.
        ImportError: the runtime is not installed.
    """
    if engine == "tflite-runtime":
        from tflite_runtime.interpreter import load_delegate as load
    else:
        from ai_edge_litert.interpreter import load_delegate as load
    try:
        ctypes.CDLL(library)  # what does not load, the runtimes leave half made
        return load(library, options)
    except (OSError, ValueError, AttributeError) as error:
        raise CannotLoad(_one_line(error)) from error


class TfliteSession:
    """A TFLite model: on a delegate, on XNNPACK where it takes it, else on the runtime's kernels.

    Args:
        raw: the file.
        engine: `litert` or `tflite-runtime`.
        threads: of one inference.
        delegate: from `load_delegate`, tried before XNNPACK.
        plain: without XNNPACK.

    Raises:
        CannotLoad: not TFLite, an operator that the runtime lacks, or a delegate that refuses the
            model or takes none of it.
    """

    def __init__(
        self, raw: bytes, *, engine: str, threads: int, delegate: Any = None, plain: bool = False
    ) -> None:
        self._engine = engine
        if raw[4:8] != b"TFL3":
            raise CannotLoad("not a TFLite file: it has no TFL3 mark")
        try:
            self._interpreter = _interpreter(engine, raw, threads, delegate, plain)
            if delegate is not None and not _takes_part(self._interpreter):
                raise CannotLoad("it takes none of the model's operators")
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
                name: _text(array) if array.dtype.kind in "SO" else array
                for name, index in self._outputs.items()
                for array in (np.asarray(self._interpreter.get_tensor(index)),)
            }
        except (ValueError, RuntimeError) as error:
            raise CannotRun(f"{self._engine}: {_one_line(error)}") from error

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


def _interpreter(engine: str, raw: bytes, threads: int, delegate: Any, plain: bool) -> Any:
    cls = interpreter_of(engine)
    more: dict[str, Any] = {}
    if delegate is not None:
        more["experimental_delegates"] = [delegate]
    if plain:
        kinds = sys.modules[cls.__module__].OpResolverType
        more["experimental_op_resolver_type"] = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return cls(model_content=raw, num_threads=threads, **more)


def _takes_part(interpreter: Any) -> bool:
    """Whether a delegate took any operator, before tensors are allocated: XNNPACK comes then.

    Runtimes that cannot tell are believed.
    """
    tell = getattr(interpreter, "_get_ops_details", None)
    return tell is None or any("delegate" in op["op_name"].lower() for op in tell())


def _text(array: Array) -> Array:
    """Bytes of the runtime as `str`. Not UTF-8 is a ValueError."""
    flat = [item.decode() if isinstance(item, bytes) else str(item) for item in array.flat]
    found = np.empty(len(flat), object)
    found[:] = flat
    return found.reshape(array.shape)


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
