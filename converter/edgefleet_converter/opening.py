"""From a source to float models that are known to be copies of it.

    source ── answers ──▶ float ONNX ── answers ──▶ float TFLite
                     compare            compare

A TFLite source is its own float model, or a finished int8 one. What a framework converts to TFLite
itself is held against the source as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from edgefleet_contract.bundle import Format
from edgefleet_contract.errors import OperatorError
from edgefleet_converter import gate
from edgefleet_converter.arrays import Array, Arrays, load_tensors
from edgefleet_converter.bench import CALIBRATION, HELD_OUT, Answers, Bench, texts
from edgefleet_converter.examples import Examples
from edgefleet_converter.feeding import lay_out, load_data
from edgefleet_converter.float_models import FloatModel, held_to, onnx_of_tflite
from edgefleet_converter.foreign import (
    FAMILIES,
    Converted,
    convert_foreign,
    name_tflite,
    refuse_code,
)
from edgefleet_converter.labels import find_labels
from edgefleet_converter.lambda_points import sweep_for_report
from edgefleet_converter.pruning import prune_model, refuse_uncut
from edgefleet_converter.report import LambdaSweep, PruneReport
from edgefleet_converter.runners import check_inputs
from edgefleet_converter.sources.kind import Kind, recognise
from edgefleet_converter.sources.sklearn import INPUT
from edgefleet_converter.targets import Target


@dataclass(frozen=True, slots=True)
class Opened:
    """A source that was read: its data, its float models by format, the class names it carries.

    The examples are what clients send. `as_is` is the file that came in, where a target wants that;
    a stateful one has not been run yet. `inputs` and `outputs` name the model's tensors. `tools`
    are the versions of what read it in the toolchain.
    """

    kind: Kind
    calibration: Examples | None
    held_out: Examples
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    models: dict[Format, FloatModel] = field(default_factory=dict)
    as_is: FloatModel | None = None
    named: tuple[str, ...] = ()
    pruned: PruneReport | None = None
    swept: LambdaSweep | None = None
    tools: dict[str, str] = field(default_factory=dict)

    @property
    def answers(self) -> Array | None:
        """What the model itself says first to the held-out examples; None if it was not run."""
        found = next(iter(self.models.values()), self.as_is)
        return None if found is None or found.answers is None else found.answers.arrays[0]


def open_source(bench: Bench, source: Path, *, trust_pickle: bool) -> Opened:
    """Read a source and its data, and make the float models that the targets need.

    Raises:
        OperatorError: the kind is not supported, the data does not fit, a conversion failed, or a
            copy strays from its source.
    """
    kind = recognise(source)
    targets = bench.recipe.targets
    _refuse_kind(
        kind,
        source,
        targets,
        trust_pickle=trust_pickle,
        is_pruned=bench.recipe.prune.has_threshold,
    )
    opened = Opened(kind, *load_data(bench.recipe))
    if kind is Kind.TFLITE:
        opened = _open_tflite(bench, source, opened)
    else:
        if any(target.is_as_is for target in targets):
            opened = _open_as_is(bench, source, opened)
        if not all(target.is_as_is for target in targets):
            opened = _open_onnx(bench, source, opened)
        if bench.recipe.prune.has_threshold:
            opened = _prune(bench, opened)
        if Format.TFLITE not in opened.models and any(t.is_tflite for t in targets):
            opened.models[Format.TFLITE] = _write_tflite(bench, opened.models[Format.ONNX])
    _check_calibration(bench, opened)
    return opened


def _open_as_is(bench: Bench, source: Path, opened: Opened) -> Opened:
    """An ONNX file that is packed as it is."""
    says = bench.task("read_onnx", "reading the ONNX model", {"source": source}, {})
    opened = replace(
        opened,
        inputs=texts(says["inputs"]),
        outputs=texts(says["outputs"]),
        named=texts(says["labels"]),
    )
    if bench.recipe.is_stateful:
        return replace(opened, as_is=FloatModel(source, None, 0.0))
    lay_out(bench, opened.calibration, opened.held_out, opened.inputs)
    answers = bench.run(Format.ONNX, source, what="running the ONNX model")
    gate.refuse_not_finite(answers.arrays, what="the source model")
    answers = replace(answers, is_int8=says["is_int8"] is True)
    return replace(opened, as_is=FloatModel(source, answers, 0.0))


def _open_onnx(bench: Bench, source: Path, opened: Opened) -> Opened:
    made: Converted | None = None
    named: tuple[str, ...] = ()
    expected: Arrays | None = None
    path = source
    if opened.kind in FAMILIES:
        made = convert_foreign(
            bench,
            source,
            opened.kind,
            calibration=opened.calibration,
            held_out=opened.held_out,
            want_tflite=any(target.is_tflite for target in bench.recipe.targets),
        )
        path, expected, named = made.onnx, made.held_out, made.named
    elif opened.kind is not Kind.ONNX:
        lay_out(bench, opened.calibration, opened.held_out, (INPUT,))
        path = bench.scratch / "source.onnx"
        expected, named = _convert_sklearn(
            bench, source, path, is_pickle=opened.kind is Kind.PICKLE
        )
    tidy = bench.scratch / "model.onnx"
    says = bench.task(
        "tidy_onnx",
        "reading the ONNX model",
        {"source": path},
        {"model.onnx": tidy},
        slim=bench.recipe.optimize.slim,
    )
    refuse_uncut(bench.recipe.prune, str(says["structured"]))
    opened = replace(opened, inputs=texts(says["inputs"]), outputs=texts(says["outputs"]))
    if expected is None:
        lay_out(bench, opened.calibration, opened.held_out, opened.inputs)
        expected = bench.run(Format.ONNX, path, what="running the ONNX model").arrays
    gate.refuse_not_finite(expected, what="the source model")
    more = made.more if made is not None else ()
    opened.models[Format.ONNX] = held_to(bench, Format.ONNX, tidy, expected, more)
    if made is not None and made.tflite is not None:
        tflite = name_tflite(bench, made.tflite, opened.inputs, opened.outputs)
        opened.models[Format.TFLITE] = held_to(bench, Format.TFLITE, tflite, expected, more)
    tools = made.tools if made is not None else {}
    return replace(opened, named=named or texts(says["labels"]), tools=tools)


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


def _prune(bench: Bench, opened: Opened) -> Opened:
    """The float model with zeros takes the place of the one without."""
    whole = opened.models[Format.ONNX]
    assert whole.answers is not None  # a stateful model is packed as it is, which is not pruned
    labels = find_labels(bench.recipe, opened.named, opened.answers)
    truth = opened.held_out.classes(labels, opened.answers)
    swept = sweep_for_report(bench, whole.path, whole.answers.arrays[0], truth)
    made = prune_model(bench, whole.path, whole.answers.arrays, truth)
    opened.models.clear()  # what a framework wrote itself is not pruned
    opened.models[Format.ONNX] = FloatModel(made.path, made.answers, whole.parity)
    return replace(opened, pruned=made.told, swept=swept)


def _write_tflite(bench: Bench, onnx: FloatModel) -> FloatModel:
    assert onnx.answers is not None  # a stateful model is packed as it is
    path = bench.scratch / "model.tflite"
    bench.task("write_tflite", "writing TFLite", {"model.onnx": onnx.path}, {"model.tflite": path})
    return held_to(bench, Format.TFLITE, path, onnx.answers.arrays)


def _open_tflite(bench: Bench, source: Path, opened: Opened) -> Opened:
    takes, gives = bench.describe(Format.TFLITE, source)
    opened = replace(
        opened,
        inputs=tuple(spec.name for spec in takes),
        outputs=tuple(spec.name for spec in gives),
    )
    if bench.recipe.is_stateful:
        return replace(opened, as_is=FloatModel(source, None, 0.0))
    lay_out(bench, opened.calibration, opened.held_out, opened.inputs)
    answers = bench.run(Format.TFLITE, source, what="running the TFLite model")
    gate.refuse_not_finite(answers.arrays, what="the source model")
    _refuse_int8(source, answers, bench.recipe.targets)
    found = FloatModel(source, answers, 0.0)
    opened.models[Format.TFLITE] = found
    opened = replace(opened, as_is=found)
    if any(not target.is_tflite for target in bench.recipe.targets):
        opened.models[Format.ONNX], tools = onnx_of_tflite(bench, source, answers)
        opened = replace(opened, tools=tools)
    return opened


def _refuse_int8(source: Path, answers: Answers, targets: tuple[Target, ...]) -> None:
    """Refuse to make anything but int8 of what is int8 already."""
    others = [one for one in targets if not (one.is_int8 or one.is_as_is)]
    if answers.is_int8 and others:
        raise OperatorError(
            f"{source} is int8 already, so no {others[0]} comes of it",
            hint="targets = ['tflite-int8'] packs it as it is",
        )


def _check_calibration(bench: Bench, opened: Opened) -> None:
    found = next(iter(opened.models.values()), opened.as_is)
    if opened.calibration is None or found is None or found.answers is None:
        return
    try:
        check_inputs(found.answers.inputs, load_tensors(bench.scratch / CALIBRATION, "input"))
    except OperatorError as error:
        raise OperatorError(f"calibration data: {error.message}", hint=error.hint) from None


def _refuse_kind(
    kind: Kind,
    source: Path,
    targets: tuple[Target, ...],
    *,
    trust_pickle: bool,
    is_pruned: bool = False,
) -> None:
    if kind is Kind.PICKLE and not trust_pickle:
        raise OperatorError(
            f"{source} is a pickle, and loading a pickle runs whatever code is in it",
            hint="save the model with skops.io.dump, or say --trust-pickle if the file is yours",
        )
    refuse_code(source, kind, trust_pickle=trust_pickle)
    as_is = [target for target in targets if target.is_as_is]
    if as_is and kind not in (Kind.ONNX, Kind.TFLITE):
        raise OperatorError(
            f"{source} is {kind}: devices do not run it as it is, which {as_is[0]} asks for",
            hint="targets = ['onnx-float32', 'tflite-float32'] convert it",
        )
    if kind is Kind.ONNX and Target.TFLITE_AS_IS in as_is:
        raise OperatorError(f"{source} is an ONNX model; tflite-as-is cannot be made of it")
    if kind is Kind.TFLITE and is_pruned:
        raise OperatorError(
            f"{source} is a TFLite model, which is not pruned",
            hint="prune the model that it was made of: ONNX or scikit-learn",
        )
    if kind is Kind.TFLITE and Target.ONNX_AS_IS in as_is:
        raise OperatorError(
            f"{source} is a TFLite model; {Target.ONNX_AS_IS} cannot be made of it",
            hint="targets = ['tflite-int8'], or 'tflite-float32' to pack it as it is",
        )
