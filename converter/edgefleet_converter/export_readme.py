"""The README of an exported variant: its tensors, its steps, and how it is run. Pure.

What others wrote stands in code blocks that its own text cannot close.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from edgefleet_contract.bundle import Format, Manifest, TensorSpec, Variant
from edgefleet_contract.cards import ModelCard, is_plain
from edgefleet_converter.program_words import program_lines

_ONNX = """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{model}")
feeds = {{
{feeds}
}}
answers = session.run(None, feeds)
"""
_TFLITE = """\
import numpy as np
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter("{model}")
tensors = {{one["name"]: one for one in interpreter.get_input_details()}}
feeds = {{
{feeds}
}}
for name, array in feeds.items():
    interpreter.resize_tensor_input(tensors[name]["index"], array.shape)
interpreter.allocate_tensors()
for name, array in feeds.items():
    interpreter.set_tensor(tensors[name]["index"], array)
interpreter.invoke()
answers = [interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()]
"""


def render_readme(
    manifest: Manifest, variant: Variant, places: Mapping[str, str], card: ModelCard | None
) -> str:
    """The text; `places` are the files' names in the folder, by their paths in the bundle."""
    parts = [f"# {manifest.name}, {variant.name}"]
    if card is not None and card.description:
        parts.append(_fenced(card.description))
    if card is not None and card.licence:
        parts.append(f"Licence:\n\n{_fenced(card.licence)}")
    parts.append(_table("It takes", variant.inputs))
    parts.append(_table("It gives", variant.outputs))
    program = variant.program
    if program is not None:
        lines = "\n".join(program_lines(program))
        parts.append(
            "The model file is one node of a program. The tensors above are those of the whole; "
            f"without edgefleet these steps are yours to do:\n\n{_fenced(lines)}"
        )
    else:
        code = _ONNX if variant.format is Format.ONNX else _TFLITE
        feeds = "\n".join(f"    {spec.name!a}: {_zeros(spec)}," for spec in variant.inputs)
        told = code.format(model=places[variant.model], feeds=feeds)
        parts.append(f"To run it:\n\n{_fenced(told.rstrip(), 'python')}")
    files = "\n".join(
        f"- `{place}`: {manifest.file(path).role}, SHA-256 `{manifest.file(path).sha256}`"
        for path, place in sorted(places.items(), key=lambda pair: pair[1])
    )
    runtimes = ", ".join(f"{name} {lowest}" for name, lowest in sorted(variant.runtimes.items()))
    parts.append(f"Files:\n\n{files}")
    parts.append(
        f"Runtimes, at least: {runtimes}. The golden vectors hold inputs with the outputs that "
        f"this model must give for them, to within {variant.max_abs_err_e6 / 1e6:g}."
    )
    return "\n\n".join(parts) + "\n"


def _table(title: str, specs: tuple[TensorSpec, ...]) -> str:
    lines = [f"{spec.name}  {spec.dtype}  [{_sizes(spec)}]" for spec in specs]
    return f"{title}:\n\n{_fenced(chr(10).join(lines))}"


def _sizes(spec: TensorSpec) -> str:
    return ", ".join("any" if size == -1 else str(size) for size in spec.shape)


def _zeros(spec: TensorSpec) -> str:
    shape = tuple(1 if size == -1 else size for size in spec.shape)
    if spec.dtype == "string":
        return f'np.full({shape}, "", object)'
    return f'np.zeros({shape}, "{spec.dtype}")'


def _fenced(text: str, language: str = "") -> str:
    """A code block that the text cannot close: its fence is longer than any in it."""
    plain = "".join(c if is_plain(c) else "\ufffd" for c in text)
    longest = max((len(run) for run in re.findall(r"`+", plain)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language or 'text'}\n{plain}\n{fence}"
