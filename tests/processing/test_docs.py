"""docs/spec/bundle.md, section 9, says what the code does: its table of steps, and its example."""

from __future__ import annotations

import dataclasses
import json
import typing
from enum import StrEnum
from pathlib import Path

import numpy as np

from edgefleet_contract import codec
from edgefleet_contract.graph import Program, check_graph
from edgefleet_processing import prepare
from edgefleet_processing.step import Step
from edgefleet_processing.table import STEPS
from edgefleet_processing.tensors import MAX_BYTES, MAX_HELD

PAGE = (Path(__file__).parents[2] / "docs/spec/bundle.md").read_text()


def amount(count: range) -> str:
    return str(count.start) if len(count) == 1 else f"{count.start} to {count.stop - 1}"


def setting(field: dataclasses.Field[object], kind: object) -> str:
    """`name`, its words or its default, the default first."""
    words = list(kind) if isinstance(kind, type) and issubclass(kind, StrEnum) else []
    if field.default is dataclasses.MISSING:
        return f"`{field.name}`" + (f" ({', '.join(words)})" if words else "")
    if words:
        rest = [word for word in words if word != field.default]
        return f"`{field.name}` = {', '.join([str(field.default), *rest])}"
    shown = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"`{field.name}` = {json.dumps(shown)}"


def row(name: str, step: Step) -> str:
    hints = typing.get_type_hints(step.settings)
    settings = "; ".join(setting(f, hints[f.name]) for f in dataclasses.fields(step.settings))
    return f"| `{name}` | {amount(step.takes)} | {amount(step.gives)} | {step.file} | {settings} |"


def test_every_step_and_setting_is_in_the_specification() -> None:
    head = ["| step | takes | gives | file | settings |", "|---|---|---|---|---|"]
    table = "\n".join([*head, *(row(name, step) for name, step in STEPS.items())])
    assert table in PAGE, f"put this into docs/spec/bundle.md:\n{table}"


def test_every_step_is_explained_in_a_sentence() -> None:
    section = PAGE.partition("## 9. ")[2]
    table = section.index("| step |")
    sentences = section[section.index("\n\n", table) :]
    assert [name for name in STEPS if f"`{name}`" not in sentences] == []
    assert f"larger than {MAX_BYTES // 2**20} MiB" in section
    assert f"{MAX_HELD // 2**20} MiB at most" in section


def test_the_example_is_a_program_that_runs() -> None:
    block = PAGE.partition("## 9. ")[2].partition("```json\n")[2].partition("```")[0]
    program = codec.decode(Program, json.loads(block), what="example")
    assert codec.encode(program) == json.loads(block)  # nothing of it is left out
    check_graph(program.nodes, ("image",), ("label", "score"), "example")
    model = {"onnx/model.onnx": lambda taken: (taken[0].mean((2, 3)) @ np.eye(3, 5, 1),)}
    files = {"labels.txt": b"a\nb\nc\nd\ne\n"}
    image = np.zeros((2, 40, 60, 3), np.uint8)
    image[0, ..., 1], image[1, ..., 2] = 255, 255
    found = prepare(program.nodes, files).run({"image": image}, ("label", "score"), model)
    assert found["label"][:, 0].tolist() == ["c", "d"]
    assert found["score"].shape == (2, 3)
