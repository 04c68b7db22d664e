"""onnxruntime as a `Session`: from bytes, one stream, no spinning, no external data.

The only module that imports onnxruntime. Only tensors go in and come out; a model whose outputs are
sequences or maps (scikit-learn's ZipMap) is refused with a word on how to mend it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnxruntime as ort

from edgefleet_agent.runtime.engine import CannotLoad, CannotRun, Tensors
from edgefleet_agent.runtime.onnx_external import NotOnnx, external_tensors
from edgefleet_contract.bundle import TensorSpec

_DTYPES: Final = {
    "tensor(bool)": "bool",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(uint16)": "uint16",
    "tensor(int32)": "int32",
    "tensor(uint32)": "uint32",
    "tensor(int64)": "int64",
    "tensor(uint64)": "uint64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(string)": "string",
}
_INPUT_TO_BLAME: Final = "INVALID_ARGUMENT"
_OUT_OF_MEMORY: Final = ("bad_alloc", "bad allocation", "Failed to allocate memory")


class OnnxSession:
    """An ONNX model on the CPU provider.

    Args:
        raw: the file.
        threads: of one inference.

    Raises:
        CannotLoad: external data, not ONNX, an unknown operator, non-tensor inputs or outputs.
    """

    def __init__(self, raw: bytes, *, threads: int) -> None:
        _refuse_external(raw)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            self._session = ort.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
        except MemoryError:
            raise
        except Exception as error:  # onnxruntime's exceptions share no base but this one
            message = _one_line(error)
            if any(word in message for word in _OUT_OF_MEMORY):
                raise MemoryError(message) from error
            raise CannotLoad(f"onnxruntime: {message}") from error
        self.inputs = tuple(_spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())
        self._names = [spec.name for spec in self.outputs]

    def run(self, feeds: Tensors) -> Tensors:
        """See `Session.run`."""
        try:
            results = self._session.run(self._names, feeds)
        except MemoryError:
            raise
        except Exception as error:
            message = _one_line(error)
            if any(word in message for word in _OUT_OF_MEMORY):
                raise MemoryError(message) from error
            raise CannotRun(
                f"onnxruntime: {message}", input_is_to_blame=_INPUT_TO_BLAME in message
            ) from error
        return {name: np.asarray(result) for name, result in zip(self._names, results, strict=True)}

    def fresh(self) -> OnnxSession:
        """See `Session.fresh`: an ONNX graph keeps nothing by itself."""
        return self


def _refuse_external(raw: bytes) -> None:
    try:
        names = external_tensors(raw)
    except NotOnnx as error:
        raise CannotLoad(f"not an ONNX file: {error}") from error
    if names:
        raise CannotLoad(
            f"tensor {names[0]!r} keeps its data in another file ({len(names)} such): refused"
        )


def _spec(node: ort.NodeArg) -> TensorSpec:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise CannotLoad(
            f"{node.name!r} is {node.type}, only tensors are served (scikit-learn: zipmap=False)"
        )
    return TensorSpec(
        node.name, dtype, tuple(size if isinstance(size, int) else -1 for size in node.shape)
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
