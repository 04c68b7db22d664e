"""From a source to float models that are known to be copies of it.

    source ── answers ──▶ float ONNX ── answers ──▶ float TFLite
                     compare            compare

A TFLite source is its own float model, or a finished int8 one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgefleet_contract.bundle import Format
from edgefleet_contract.errors import OperatorError
from edgefleet_converter import gate
from edgefleet_converter.arrays import Arrays, load_tensors, save_tensors
from edgefleet_converter.bench import CALIBRATION, HELD_OUT, Answers, Bench, texts
from edgefleet_converter.examples import Examples, load_held_out, load_inputs
from edgefleet_converter.recipe import Target
from edgefleet_converter.runners import check_inputs
from edgefleet_converter.sources.kind import COMES_IN, Kind, recognise


@dataclass(frozen=True, slots=True)
class FloatModel:
    """A model file, what it answers to the held-out examples, and how far that is off."""

    path: Path
    answers: Answers
    parity: float


@dataclass(frozen=True, slots=True)
class Opened:
    """A source that was read: its data, its float models by format, the class names it carries."""

    kind: Kind
    calibration: Examples
    held_out: Examples
    models: dict[Format, FloatModel]
    named: tuple[str, ...]


def open_source(bench: Bench, source: Path, *, trust_pickle: bool) -> Opened:
    """Read a source and its data, and make the float models that the targets need.

    Raises:
        OperatorError: the kind is not supported, the data does not fit, a conversion failed, or a
            copy strays from its source.
    """
    kind = recognise(source)
    _refuse_kind(kind, source, bench.recipe.targets, trust_pickle=trust_pickle)
    data = bench.recipe.data
    calibration = load_inputs(bench.recipe.path(data.calibration), what="calibration")
    held_out = load_held_out(bench.recipe.path(data.held_out))
    opened = Opened(kind, calibration, held_out, {}, ())
    if kind is Kind.TFLITE:
        _lay_out(bench, opened)
        opened = _open_tflite(bench, source, opened)
    else:
        opened = _open_onnx(bench, source, opened)
        if any(target.is_tflite for target in bench.recipe.targets):
            opened.models[Format.TFLITE] = _write_tflite(bench, opened.models[Format.ONNX])
    specs = next(iter(opened.models.values())).answers.inputs
    try:
        check_inputs(specs, opened.calibration.inputs)
    except OperatorError as error:
        raise OperatorError(f"calibration data: {error.message}", hint=error.hint) from None
    return opened


def _open_onnx(bench: Bench, source: Path, opened: Opened) -> Opened:
    named: tuple[str, ...] = ()
    expected: Arrays | None = None
    path = source
    if opened.kind is not Kind.ONNX:
        _lay_out(bench, opened)
        path = bench.scratch / "source.onnx"
        expected, named = _convert_sklearn(
            bench, source, path, is_pickle=opened.kind is Kind.PICKLE
        )
    tidy = bench.scratch / "model.onnx"
    says = bench.task("tidy_onnx", "reading the ONNX model", {"source": path}, {"model.onnx": tidy})
    if expected is None:
        names = texts(says["inputs"])
        opened = replace(
            opened,
            calibration=opened.calibration.ordered(names, what="calibration"),
            held_out=opened.held_out.ordered(names, what="held-out"),
        )
        _lay_out(bench, opened)
        expected = bench.run(Format.ONNX, path, what="running the ONNX model").arrays
    gate.refuse_not_finite(expected, what="the source model")
    opened.models[Format.ONNX] = _held_to(bench, Format.ONNX, tidy, expected)
    return replace(opened, named=named or texts(says["labels"]))


def _convert_sklearn(
    bench: Bench, source: Path, path: Path, *, is_pickle: bool
) -> tuple[Arrays, tuple[str, ...]]:
    answers = bench.scratch / "estimator.npz"
    says = bench.task(
        "sklearn_to_onnx",
        "converting the scikit-learn model",
        {"source": source, "inputs.npz": bench.scratch / HELD_OUT},
        {"model.onnx": path, "outputs.npz": answers},
        is_pickle=is_pickle,
        trusted_types=list(bench.recipe.source.trusted_types),
    )
    return load_tensors(answers, "output"), texts(says["labels"])


def _write_tflite(bench: Bench, onnx: FloatModel) -> FloatModel:
    path = bench.scratch / "model.tflite"
    bench.task("write_tflite", "writing TFLite", {"model.onnx": onnx.path}, {"model.tflite": path})
    return _held_to(bench, Format.TFLITE, path, onnx.answers.arrays)


def _open_tflite(bench: Bench, source: Path, opened: Opened) -> Opened:
    answers = bench.run(Format.TFLITE, source, what="running the TFLite model")
    gate.refuse_not_finite(answers.arrays, what="the source model")
    if answers.is_int8 and Target.TFLITE_FLOAT32 in bench.recipe.targets:
        raise OperatorError(
            f"{source} is int8 already, so no tflite-float32 comes of it",
            hint="targets = ['tflite-int8'] packs it as it is",
        )
    opened.models[Format.TFLITE] = FloatModel(source, answers, 0.0)
    return opened


def _held_to(bench: Bench, kind: Format, path: Path, expected: Arrays) -> FloatModel:
    name = f"{kind}-float32"
    answers = bench.run(kind, path, what=f"running {name}")
    gate.refuse_not_finite(answers.arrays, what=name)
    tolerance = bench.recipe.parity.max_abs_err
    parity = gate.refuse_disparity(expected, answers.arrays, tolerance=tolerance, what=name)
    return FloatModel(path, answers, parity)


def _lay_out(bench: Bench, opened: Opened) -> None:
    """Put the examples where the workers take them from."""
    save_tensors(bench.scratch / CALIBRATION, "input", opened.calibration.inputs)
    save_tensors(bench.scratch / HELD_OUT, "input", opened.held_out.inputs)


def _refuse_kind(
    kind: Kind, source: Path, targets: tuple[Target, ...], *, trust_pickle: bool
) -> None:
    if kind is Kind.PICKLE and not trust_pickle:
        raise OperatorError(
            f"{source} is a pickle, and loading a pickle runs whatever code is in it",
            hint="save the model with skops.io.dump, or say --trust-pickle if the file is yours",
        )
    if kind in (Kind.KERAS, Kind.TORCH):
        raise OperatorError(
            f"{source} is a {kind} model, which does not come in yet",
            hint=f"what comes in: {COMES_IN}",
        )
    wrong = [target for target in targets if not target.is_tflite]
    if kind is Kind.TFLITE and wrong:
        raise OperatorError(
            f"{source} is a TFLite model; {wrong[0]} cannot be made of it",
            hint="targets = ['tflite-int8'], or 'tflite-float32' to pack it as it is",
        )
