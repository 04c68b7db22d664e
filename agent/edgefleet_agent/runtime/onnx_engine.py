"""onnxruntime as a `Session`: from bytes, one stream, no spinning; weights from signed files alone.

The only module that imports onnxruntime. Only tensors go in and come out; a model whose outputs are
sequences or maps (scikit-learn's ZipMap) is refused with a word on how to mend it.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import onnxruntime as ort

from edgefleet_agent.runtime.engine import Array, CannotLoad, CannotRun, Tensors, Weights
from edgefleet_agent.runtime.onnx_external import NotOnnx, Placed, placed_tensors
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
_KINDS: Final = dict(
    zip(
        (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13),  # TensorProto.DataType of onnx.proto3
        (
            *("float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "bool", "float16"),
            *("float64", "uint32", "uint64"),
        ),
        strict=True,
    )
)
_INPUT_TO_BLAME: Final = "INVALID_ARGUMENT"
_CPU: Final = "CPUExecutionProvider"
_PROVIDER: Final = "executionprovider"
_REMOTE: Final = "azure"
"""The provider that would send inputs to a service in the network."""
_OUT_OF_MEMORY: Final = ("bad_alloc", "bad allocation", "Failed to allocate memory")


def provider_of(name: str) -> str | None:
    """The execution provider of this build that is meant by `cpu`, `xnnpack`, `cuda`, …: its name
    without the end that all have, in lower case. None where the build has none of that name.
    """
    if name == _REMOTE:
        return None
    found: list[str] = ort.get_available_providers()
    return next((each for each in found if each.lower() == name + _PROVIDER), None)


class OnnxSession:
    """An ONNX model on an execution provider; what that one does not take runs on the CPU provider.

    Args:
        raw: the file.
        threads: of one inference.
        provider: as onnxruntime calls it.
        options: of the provider.
        weights: the bytes of files that its tensors may refer to, by name; used in place.
        is_optimized: the runtime's passes were run ahead, and are not run again.

    Raises:
        CannotLoad: external data, not ONNX, an unknown operator, non-tensor inputs or outputs; a
            provider that does not start here or takes none of the model.
    """

    def __init__(
        self,
        raw: bytes,
        *,
        threads: int,
        provider: str = _CPU,
        options: dict[str, str] | None = None,
        weights: Weights | None = None,
        is_optimized: bool = False,
    ) -> None:
        self._weights = _placed(raw, weights or {})  # the session reads them where they are
        self._session = _session(
            raw, threads, provider, options or {}, self._weights, is_optimized=is_optimized
        )
        self.inputs = tuple(_spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())
        self._names = [spec.name for spec in self.outputs]
        if provider != _CPU and (refusal := _refusal(self._session, provider)):
            raise CannotLoad(refusal)

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


def _session(
    raw: bytes,
    threads: int,
    provider: str,
    provider_options: dict[str, str],
    weights: Tensors,
    *,
    is_optimized: bool,
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    if is_optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if weights:
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        options.add_external_initializers(list(weights), values)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    providers: list[object] = [_CPU]
    if provider != _CPU:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        providers.insert(0, (provider, provider_options))
    try:
        # Without its own fallback, which is silent: the chain is ours.
        return ort.InferenceSession(raw, options, providers=providers, enable_fallback=0)
    except MemoryError:
        raise
    except Exception as error:  # onnxruntime's exceptions share no base but this one
        message = _one_line(error)
        if any(word in message for word in _OUT_OF_MEMORY):
            raise MemoryError(message) from error
        raise CannotLoad(f"onnxruntime: {message}") from error


def _refusal(session: ort.InferenceSession, provider: str) -> str:
    """Why a provider runs nothing of the model; empty where it does, or the build cannot tell."""
    if provider not in session.get_providers():
        return "it does not start on this board"
    try:
        parts = session.get_provider_graph_assignment_info()
    except (AttributeError, RuntimeError):
        return ""
    if any(part.ep_name == provider and part.get_nodes() for part in parts):
        return ""
    return "it takes none of the model's operators"


def _placed(raw: bytes, weights: Weights) -> Tensors:
    """The tensors whose bytes lie in signed files, in place: none of these is left to the runtime,
    which would look for the file by itself."""
    try:
        tensors = placed_tensors(raw)
    except NotOnnx as error:
        raise CannotLoad(f"not an ONNX file: {error}") from error
    return {tensor.name: _in_place(tensor, weights, len(tensors)) for tensor in tensors}


def _in_place(tensor: Placed, weights: Weights, number: int) -> Array:
    found = weights.get(tensor.location)
    if found is None or not tensor.is_weight:
        raise CannotLoad(
            f"tensor {tensor.name!r} keeps its data in another file ({number} such): refused"
        )
    kind = np.dtype(_KINDS.get(tensor.kind, "V0"))
    size = math.prod(tensor.shape) * kind.itemsize
    if not size or size != tensor.length or not 0 <= tensor.offset <= len(found) - size:
        raise CannotLoad(f"tensor {tensor.name!r} is not where it says in {tensor.location!r}")
    flat = np.frombuffer(found, kind, math.prod(tensor.shape), tensor.offset)
    return flat.reshape(tensor.shape)


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
