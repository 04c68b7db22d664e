"""A TFLite file, built tensor by tensor: the flatbuffer schema and nothing about ONNX.

Schema: tensorflow/lite/schema/schema.fbs, read through `ai_edge_litert.schema_py_generated`. A
dimension that varies is -1 in `shape_signature` and 1 in `shape`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgefleet_converter.passes.stamp_tflite import stamp_versions

SCHEMA_VERSION: Final = 3
IDENTIFIER: Final = b"TFL3"
SIGNATURE_KEY: Final = "serving_default"
_TYPES: Final = {"float32": schema.TensorType.FLOAT32, "int32": schema.TensorType.INT32}


class TfliteFile:
    """One subgraph under construction; tensors are known by their index."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: list[Any] = []
        self._buffers: list[Any] = [schema.BufferT()]  # buffer 0 is the empty one, by convention
        self._shapes: list[tuple[int, ...]] = []

    def constant(self, name: str, array: NDArray[np.generic]) -> int:
        """A tensor with values, float32 or int32."""
        plain = np.ascontiguousarray(array)
        self._buffers.append(schema.BufferT(data=np.frombuffer(plain.tobytes(), np.uint8)))
        return self._add(name, plain.shape, plain.dtype.name, buffer=len(self._buffers) - 1)

    def tensor(self, name: str, shape: Sequence[int], dtype: str = "float32") -> int:
        """A tensor that is computed or fed."""
        return self._add(name, shape, dtype, buffer=0)

    def shape(self, index: int) -> tuple[int, ...]:
        """The shape of a tensor, -1 where it varies."""
        return self._shapes[index]

    def operator(
        self, code: int, inputs: Sequence[int], outputs: Sequence[int], options: Any = None
    ) -> None:
        """Append an operator; `options` is an `…OptionsT` of the schema."""
        kind = 0
        if options is not None:
            name = type(options).__name__.removesuffix("T")
            kind = getattr(schema.BuiltinOptions, name)
        self._operators.append(
            schema.OperatorT(
                opcodeIndex=self._code(code),
                inputs=list(inputs),
                outputs=list(outputs),
                builtinOptionsType=kind,
                builtinOptions=options,
            )
        )

    def save(self, path: Path, inputs: dict[str, int], outputs: dict[str, int]) -> None:
        """Write the file, with one signature whose names are those given."""
        subgraph = schema.SubGraphT(
            tensors=self._tensors,
            inputs=list(inputs.values()),
            outputs=list(outputs.values()),
            operators=self._operators,
            name="main",
        )
        signature = schema.SignatureDefT(
            inputs=[schema.TensorMapT(name=n, tensorIndex=i) for n, i in inputs.items()],
            outputs=[schema.TensorMapT(name=n, tensorIndex=i) for n, i in outputs.items()],
            signatureKey=SIGNATURE_KEY,
            subgraphIndex=0,
        )
        model = schema.ModelT(
            version=SCHEMA_VERSION,
            operatorCodes=self._codes,
            subgraphs=[subgraph],
            description="edgefleet",
            buffers=self._buffers,
            signatureDefs=[signature],
        )
        stamp_versions(model)
        path.write_bytes(serialize(model))

    def _add(self, name: str, shape: Sequence[int], dtype: str, *, buffer: int) -> int:
        signature = [int(size) for size in shape]
        varies = -1 in signature
        self._tensors.append(
            schema.TensorT(
                shape=[1 if size == -1 else size for size in signature],
                shapeSignature=signature if varies else None,
                type=_TYPES[dtype],
                buffer=buffer,
                name=name,
                hasRank=True,
            )
        )
        self._shapes.append(tuple(signature))
        return len(self._tensors) - 1

    def _code(self, code: int) -> int:
        for index, known in enumerate(self._codes):
            if known.builtinCode == code:
                return index
        # Readers older than schema 3a look at the deprecated byte, which ends at 127.
        self._codes.append(
            schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=1)
        )
        return len(self._codes) - 1


def parse(raw: bytes) -> Any:
    """The `ModelT` in the bytes of a file, all of it inside.

    Large files keep buffers and options behind the flatbuffer, by offset and size from the
    beginning of the file (schema.fbs: Buffer.offset, Operator.large_custom_options_offset); what
    is written again would lose them.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(raw, 0))
    for buffer in model.buffers or ():
        if buffer.offset > 1:  # 0 and 1 say that there is none
            buffer.data = np.frombuffer(raw, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    for operator in (one for graph in model.subgraphs or () for one in graph.operators or ()):
        if operator.largeCustomOptionsOffset > 1:
            size, at = operator.largeCustomOptionsSize, operator.largeCustomOptionsOffset
            operator.customOptions = np.frombuffer(raw, np.uint8, size, at)
            operator.largeCustomOptionsOffset = operator.largeCustomOptionsSize = 0
    return model


def serialize(model: Any) -> bytes:
    """The bytes of a `ModelT`."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())
