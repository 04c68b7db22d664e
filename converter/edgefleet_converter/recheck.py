"""A task of the worker: whether a finished variant still gives its golden vectors, here.

The law is the device's [bundle-4.3, bundle-10.6]: every output within the tolerance; text and
whole numbers compared as they are; NaN equals NaN. Vectors of the tensors' own rank are rows of
batches; with one axis more, each is a whole call. A model that keeps state by itself is loaded anew
for each sequence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from edgefleet_contract import codec
from edgefleet_contract.bundle import Format, TensorSpec, Variant
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Array, Arrays, load_tensors
from edgefleet_converter.borders import Bare
from edgefleet_converter.program_runner import ProgramRunner, Whole
from edgefleet_converter.runners import OnnxRunner, open_model
from edgefleet_processing import StepFailed

Infer = Callable[[Arrays], Arrays]
Call = tuple[Arrays, Arrays]


@dataclass(frozen=True, slots=True)
class Job:
    """A variant in a worker's folder: `files` are local names by path in the bundle."""

    variant: Variant
    files: dict[str, str]


def check(*, job: Json) -> dict[str, Json]:
    """How far the outputs are off at most, `inf` where they cannot be compared, and on what.

    Raises:
        OperatorError: the model does not load, or cannot be run on its vectors.
    """
    asked = codec.decode(Job, job, what="job")
    variant = asked.variant
    files = {path: Path(local) for path, local in asked.files.items()}
    taken = load_tensors(files[variant.golden], "input")
    given = load_tensors(files[variant.golden], "output")
    calls = list(calls_in(variant, taken, given))
    worst = 0.0
    is_hidden = variant.program is not None and variant.program.hidden_state
    infer = opened(variant, files)
    for sequence in (calls, calls[:1]) if is_hidden else (calls,):
        infer = opened(variant, files) if is_hidden else infer
        for inputs, expected in sequence:
            try:
                found = infer(inputs)
            except StepFailed as error:
                raise OperatorError(f"golden vectors: {error}") from None
            worst = max(worst, *map(difference, found, expected))
    return {
        "vectors": len(taken[0]),
        "worst": worst if math.isfinite(worst) else None,
        "runtime": _runtime(variant.format),
    }


def difference(found: Array, expected: Array) -> float:
    """The largest absolute difference; infinite where shapes or texts differ."""
    if found.shape != expected.shape:
        return math.inf
    if expected.dtype.kind in "OUS" or found.dtype.kind in "OUS":
        same_text = np.array_equal(found.astype(np.str_), expected.astype(np.str_))
        return 0.0 if same_text else math.inf
    left, right = found.astype(np.float64), expected.astype(np.float64)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    if bool(same.all()):
        return 0.0
    with np.errstate(invalid="ignore"):
        gap = np.abs(left[~same] - right[~same])
    return math.inf if bool(np.isnan(gap).any()) else float(gap.max())


def opened(variant: Variant, files: dict[str, Path]) -> Infer:
    """What runs a call by the order of the variant's inputs and outputs."""
    program = variant.program
    if program is not None and program.nodes:
        names = tuple(spec.name for spec in variant.outputs)
        whole = Whole(variant.format, program.nodes, variant.inputs, names, files)
        return ProgramRunner(whole).infer
    model = _open(variant, files)
    into = _places(variant.inputs, model.inputs, variant.model)
    out = _places(model.outputs, variant.outputs, variant.model)

    def infer(inputs: Arrays) -> Arrays:
        given = model.infer(tuple(np.asarray(inputs[i], order="C") for i in into))
        return tuple(given[i] for i in out)

    return infer


def _open(variant: Variant, files: dict[str, Path]) -> Bare:
    """The model of a variant that is one, as devices open it [bundle-4.6, bundle-4.7]."""
    place = files[variant.model]
    known = {*variant.files, variant.golden, variant.drift}
    folder = variant.model.rpartition("/")[0] + "/"
    weights = {
        path.removeprefix(folder): local
        for path, local in files.items()
        if path not in known and path.startswith(folder)
    }
    if not weights and variant.optimized_for is None:
        return open_model(place, variant.format)
    return OnnxRunner(
        place.read_bytes(),
        is_plain=variant.optimized_for is not None,
        weights={name: np.memmap(local, np.uint8, "r") for name, local in weights.items()},
    )


def _places(
    have: tuple[TensorSpec, ...], want: tuple[TensorSpec, ...], path: str
) -> tuple[int, ...]:
    """Where in `have` each of `want` stands, by name."""
    names = [spec.name for spec in have]
    if sorted(names) != sorted(spec.name for spec in want):
        told = [spec.name for spec in want]
        raise OperatorError(f"{path}: tensors {names}, and {told} are asked for")
    return tuple(names.index(spec.name) for spec in want)


def calls_in(variant: Variant, taken: Arrays, given: Arrays) -> Iterator[Call]:
    """The calls that golden vectors stand for: what goes in, what must come out."""
    specs = (*variant.inputs, *variant.outputs)
    arrays = (*taken, *given)
    if (len(taken), len(given)) != (len(variant.inputs), len(variant.outputs)) or not taken:
        raise OperatorError(f"{variant.golden}: {len(taken)} inputs and {len(given)} outputs")
    count = len(taken[0]) if taken[0].ndim else 0
    more = {array.ndim - len(spec.shape) for array, spec in zip(arrays, specs, strict=True)}
    if len(more) != 1 or more > {0, 1} or count < 1 or any(len(a) != count for a in arrays):
        raise OperatorError(f"{variant.golden}: the arrays do not count the same vectors")
    if more == {1}:
        for i in range(count):
            yield tuple(np.asarray(a[i]) for a in taken), tuple(np.asarray(a[i]) for a in given)
        return
    fixed = {spec.shape[0] for spec in specs} - {-1}
    step = fixed.pop() if fixed else count
    if fixed or step < 1 or count % step:
        raise OperatorError(f"{variant.golden}: {count} vectors do not fill batches of {step}")
    for start in range(0, count, step):
        rows = slice(start, start + step)
        yield tuple(a[rows] for a in taken), tuple(a[rows] for a in given)


def _runtime(kind: Format) -> str:
    name = "ai-edge-litert" if kind is Format.TFLITE else "onnxruntime"
    return f"{name} {metadata.version(name)}"
