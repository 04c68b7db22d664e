"""Run a model file, from bytes, on one thread: ONNX by onnxruntime, TFLite by LiteRT.

The kernels that a device uses by default, or others of the same runtime that compute the same
function another way; where both agree, another processor will as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract.bundle import Format, TensorSpec
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Array, Arrays
from edgefleet_converter.borders import Bare, Border, border_of

_ROWS = 256  # examples a call, where the batch may vary

_ONNX_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    "tensor(string)": "string",
} | {
    f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}


_BUILTINS: Final = (
    "devices know TFLITE_BUILTINS alone: convert it without SELECT_TF_OPS and custom operators"
)


Weights: TypeAlias = "Mapping[str, NDArray[np.uint8]]"
"""Bytes of files that hold weights, by name."""


class Kernels(StrEnum):
    """Which implementation of the operators runs."""

    DEFAULT = "default"
    PLAIN = "plain"
    THREADS = "threads"
    SINGLE = "single"
    REFERENCE = "reference"


OTHER_KERNELS: Final = {
    Format.ONNX: (Kernels.PLAIN, Kernels.THREADS, Kernels.SINGLE),
    Format.TFLITE: (Kernels.PLAIN, Kernels.THREADS, Kernels.SINGLE, Kernels.REFERENCE),
}
"""Without the passes or the delegate that a runtime applies by itself; on two threads; the first
examples one at a time, which matrices of one row go through other code for; and LiteRT's kernels
without vector instructions."""

THREADS: Final = 2
SINGLES: Final = 64


class Runner(Protocol):
    """A loaded model. `quantum`: the step between values of its outputs, 0 where unknown."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    is_int8: bool
    quantum: float

    def infer(self, inputs: Arrays) -> Arrays:
        """The outputs for one batch."""
        ...


def open_model(path: Path, kind: Format, kernels: Kernels = Kernels.DEFAULT) -> Bare:
    """The model in a file, loaded from its bytes.

    Raises:
        OperatorError: the runtime does not load it.
    """
    raw = path.read_bytes()
    return TfliteRunner(raw, kernels) if kind is Format.TFLITE else OnnxRunner(raw, kernels)


def starts(total: int, step: int, kernels: Kernels = Kernels.DEFAULT) -> list[tuple[int, int]]:
    """Where batches begin and end; of single kernels, the first ones are of one example each."""
    singles = min(SINGLES, total) if kernels is Kernels.SINGLE and step > 1 else 0
    ones = [(i, i + 1) for i in range(singles)]
    return ones + [(i, min(i + step, total)) for i in range(singles, total, step)]


def run_all(runner: Runner, inputs: Arrays, kernels: Kernels = Kernels.DEFAULT) -> Arrays:
    """The outputs for any number of examples, in batches that the model takes.

    Raises:
        OperatorError: an array does not fit the model's inputs.
    """
    check_inputs(runner.inputs, inputs)
    total = len(inputs[0])
    size = runner.inputs[0].shape[0] if runner.inputs[0].shape else -1
    step = _ROWS if size == -1 else size
    cuts = starts(total, step, kernels if size == -1 else Kernels.DEFAULT)
    parts: list[Arrays] = []
    for start, end in cuts:
        batch = tuple(array[start:end] for array in inputs)
        rows = len(batch[0])
        if size != -1 and rows < size:
            batch = tuple(_pad(array, size) for array in batch)
        outputs = runner.infer(batch)
        for spec, output in zip(runner.outputs, outputs, strict=True):
            if output.ndim == 0 or len(output) != len(batch[0]):
                raise OperatorError(
                    f"output {spec.name!r} has shape {list(output.shape)} for {len(batch[0])} "
                    "examples: its first dimension does not count them"
                )
        parts.append(tuple(output[:rows] for output in outputs))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def check_inputs(specs: tuple[TensorSpec, ...], inputs: Arrays) -> None:
    """Refuse arrays that do not fit.

    Raises:
        OperatorError: naming the input, what it takes and what was brought.
    """
    if len(specs) != len(inputs):
        raise OperatorError(f"the model has {len(specs)} inputs, the data has {len(inputs)}")
    for spec, array in zip(specs, inputs, strict=True):
        fits = len(spec.shape) == array.ndim and all(
            want in (-1, have) for want, have in zip(spec.shape[1:], array.shape[1:], strict=True)
        )
        if not fits:
            raise OperatorError(
                f"input {spec.name!r} takes {list(spec.shape)}, the data has {list(array.shape)}",
                hint="the first dimension counts examples; the others must match",
            )
        if spec.dtype not in (str(array.dtype), "string"):
            raise OperatorError(
                f"input {spec.name!r} takes {spec.dtype}, the data has {array.dtype}",
                hint=f"array.astype('{spec.dtype}') saves it as that; steps cast or scale",
            )


class OnnxRunner:
    """A session of onnxruntime on the CPU.

    Args:
        raw: the file.
        kernels: which implementations.
        is_plain: the runtime's passes were run ahead, and are not run again.
        weights: files that its tensors refer to, by name.
    """

    def __init__(
        self,
        raw: bytes,
        kernels: Kernels = Kernels.DEFAULT,
        *,
        is_plain: bool = False,
        weights: Weights | None = None,
    ) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = THREADS if kernels is Kernels.THREADS else 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if is_plain or kernels is Kernels.PLAIN:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._weights = _placed(raw, weights) if weights else {}  # the session reads them in place
        if self._weights:
            options.add_external_initializers(
                list(self._weights),
                [ort.OrtValue.ortvalue_from_numpy(one) for one in self._weights.values()],
            )
        try:
            self._session = ort.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - its exceptions have no public base
            text = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
            raise OperatorError(f"onnxruntime does not load it: {text}") from None
        self.inputs = tuple(_onnx_spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(_onnx_spec(node) for node in self._session.get_outputs())
        self.is_int8 = False  # the quantizer that wrote the file knows; nobody asks here
        self.quantum = _quantum(self.outputs)
        self.input_borders: tuple[Border | None, ...] = (None,) * len(self.inputs)
        self.output_borders: tuple[Border | None, ...] = (None,) * len(self.outputs)

    def infer(self, inputs: Arrays) -> Arrays:
        """The outputs for one batch."""
        feed = {spec.name: array for spec, array in zip(self.inputs, inputs, strict=True)}
        return tuple(np.asarray(output) for output in self._session.run(None, feed))


class TfliteRunner:
    """An interpreter of LiteRT on the CPU; a varying first dimension is resized to the batch."""

    def __init__(self, raw: bytes, kernels: Kernels = Kernels.DEFAULT) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        resolver = {
            Kernels.DEFAULT: OpResolverType.AUTO,
            Kernels.PLAIN: OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            Kernels.REFERENCE: OpResolverType.BUILTIN_REF,
        }.get(kernels, OpResolverType.AUTO)
        threads = THREADS if kernels is Kernels.THREADS else 1
        try:
            self._interpreter = Interpreter(
                model_content=raw, num_threads=threads, experimental_op_resolver_type=resolver
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise _not_loaded(str(error) or type(error).__name__) from None
        self._in = self._interpreter.get_input_details()
        self._out = self._interpreter.get_output_details()
        self.inputs = tuple(_tflite_spec(detail) for detail in self._in)
        self.outputs = tuple(_tflite_spec(detail) for detail in self._out)
        self.is_int8 = any(_is_quantized(d) for d in self._interpreter.get_tensor_details())
        self.input_borders = tuple(border_of(detail) for detail in self._in)
        self.output_borders = tuple(border_of(detail) for detail in self._out)
        self.quantum = _quantum(self.outputs)
        self._shapes: tuple[tuple[int, ...], ...] = tuple(tuple(d["shape"]) for d in self._in)

    def infer(self, inputs: Arrays) -> Arrays:
        """The outputs for one batch."""
        shapes = tuple(array.shape for array in inputs)
        if shapes != self._shapes:
            for detail, shape in zip(self._in, shapes, strict=True):
                self._interpreter.resize_tensor_input(detail["index"], shape)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for detail, array in zip(self._in, inputs, strict=True):
            self._interpreter.set_tensor(detail["index"], array)
        self._interpreter.invoke()
        return tuple(self._interpreter.get_tensor(detail["index"]) for detail in self._out)


def _not_loaded(text: str) -> OperatorError:
    """What LiteRT says, in short: the operator where it is one that no device has."""
    line = text.splitlines()[0]
    flex = re.search(r"Node number (\d+) \((Flex\w+)\)", text)
    if flex is not None:
        line = f"node {flex[1]} is {flex[2]}, an operator of TensorFlow"
    is_strange = flex is not None or "custom op" in line
    return OperatorError(
        f"LiteRT does not load it: {line[:300]}", hint=_BUILTINS if is_strange else ""
    )


def _placed(raw: bytes, weights: Weights) -> dict[str, Array]:
    """The tensors of a model whose bytes lie in these files, in place."""
    import onnx

    found: dict[str, Array] = {}
    for tensor in onnx.load_model_from_string(raw).graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        told = {entry.key: entry.value for entry in tensor.external_data}
        if told.get("location") not in weights:
            raise OperatorError(f"the weights of {tensor.name!r} are in a file that is not here")
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        flat = np.frombuffer(
            weights[told["location"]],
            kind,
            int(told["length"]) // kind.itemsize,
            int(told["offset"]),
        )
        found[tensor.name] = flat.reshape(tuple(tensor.dims))
    return found


def _onnx_spec(node: Any) -> TensorSpec:
    name, kind = str(node.name), str(node.type)
    if kind not in _ONNX_DTYPES:
        raise OperatorError(f"tensor {name!r} is a {kind}; only plain tensors are supported")
    shape = node.shape or ()
    return TensorSpec(
        name, _ONNX_DTYPES[kind], tuple(d if isinstance(d, int) and d >= 0 else -1 for d in shape)
    )


def _tflite_spec(detail: dict[str, Any]) -> TensorSpec:
    signature = np.asarray(detail["shape_signature"]).tolist()
    shape = signature or np.asarray(detail["shape"]).tolist()
    dtype = np.dtype(detail["dtype"])
    kind = "string" if dtype.kind == "S" else dtype.name
    return TensorSpec(str(detail["name"]), kind, tuple(int(size) for size in shape))


def _quantum(outputs: tuple[TensorSpec, ...]) -> float:
    """The step of outputs that are 8-bit integers themselves."""
    return 1.0 if any(spec.dtype in ("int8", "uint8") for spec in outputs) else 0.0


def _is_quantized(detail: dict[str, Any]) -> bool:
    scales = detail["quantization_parameters"]["scales"]
    return np.dtype(detail["dtype"]).itemsize == 1 and len(scales) > 0


def _pad(array: Array, size: int) -> Array:
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])
