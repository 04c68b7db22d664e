"""TFLite files that keep their weights behind the flatbuffer, as large ones do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgefleet_contract.bundle import Format
from edgefleet_converter.passes.tflite_file import TfliteFile, parse, serialize
from edgefleet_converter.runners import open_model
from tests.converter.models import weights


def dense(path: Path) -> bytes:
    file = TfliteFile()
    x, y = file.tensor("x", (1, 64)), file.tensor("y", (1, 32))
    constants = [file.constant("w", weights(32, 64)), file.constant("b", weights(32))]
    options = schema.FullyConnectedOptionsT()
    file.operator(schema.BuiltinOperator.FULLY_CONNECTED, [x, *constants], [y], options)
    file.save(path, {"x": x}, {"y": y})
    return path.read_bytes()


def with_weights_behind(raw: bytes) -> bytes:
    """The same file, each buffer of it behind the flatbuffer."""
    model = parse(raw)
    kept = {i: b.data for i, b in enumerate(model.buffers) if b.data is not None and len(b.data)}
    for index, data in kept.items():
        model.buffers[index].data = None
        model.buffers[index].offset, model.buffers[index].size = 2**20, len(data)  # as long as any
    at, behind = len(serialize(model)) + 64 & ~63, b""
    for index, data in kept.items():
        model.buffers[index].offset = at + len(behind)
        behind += bytes(data) + bytes(-len(data) % 16)
    return serialize(model).ljust(at, b"\0") + behind


def answers(path: Path) -> np.ndarray:
    runner = open_model(path, Format.TFLITE)
    (found,) = runner.infer((np.linspace(-1, 1, 64, dtype=np.float32)[None],))
    return np.array(found)


def test_what_lies_behind_is_read_and_written_again_inside(tmp_path: Path) -> None:
    raw = dense(tmp_path / "inside.tflite")
    behind = tmp_path / "behind.tflite"
    behind.write_bytes(with_weights_behind(raw))
    wanted = answers(tmp_path / "inside.tflite")
    assert np.array_equal(answers(behind), wanted)  # the runtime knows such files
    again = tmp_path / "again.tflite"
    again.write_bytes(serialize(parse(behind.read_bytes())))
    assert all(buffer.offset == 0 for buffer in parse(again.read_bytes()).buffers)
    assert np.array_equal(answers(again), wanted)
