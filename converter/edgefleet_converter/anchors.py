"""Anchors: int8 of the same float model by other tools at their defaults, to see ours against.

They are measured as the variants are, and packed nowhere. One that fails says so in the report.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract.bundle import Format
from edgefleet_contract.errors import OperatorError
from edgefleet_converter import gate, metrics
from edgefleet_converter.arrays import load_tensors, save_tensors
from edgefleet_converter.bench import CALIBRATION, HELD_OUT, Answers, Bench
from edgefleet_converter.borders import into_integers
from edgefleet_converter.float_models import FloatModel
from edgefleet_converter.metrics import Share
from edgefleet_converter.opening import Opened
from edgefleet_converter.report import AnchorReport, Measured
from edgefleet_converter.targets import Target
from edgefleet_converter.whole_variants import Setting, classes_of

TOOLS: Final = {Format.ONNX: "onnxruntime", Format.TFLITE: "ai-edge-quantizer"}
_FED: Final = "anchor.npz"


def measure_anchors(
    bench: Bench, opened: Opened, setting: Setting, truth: NDArray[np.int64] | None
) -> tuple[AnchorReport, ...] | None:
    """One for each format with an int8 target, if the recipe wants them.

    Args:
        bench: does the work.
        opened: the float models and the examples.
        setting: the steps around the model, and what clients send.
        truth: the class of each held-out example, [N], if it is known.
    """
    if not bench.recipe.report.anchors:
        return None
    targets = {one.kind: one for one in bench.recipe.targets if one.is_int8}
    found = []
    for kind, target in targets.items():
        base = opened.models.get(kind)
        if base is None or base.answers is None or base.answers.is_int8:
            continue
        try:
            found.append(_anchor(bench, setting, target, base, base.answers, truth))
        except OperatorError as error:
            found.append(AnchorReport(_name(kind), target.value, error=error.message[:300]))
    return tuple(found)


def _anchor(
    bench: Bench,
    setting: Setting,
    target: Target,
    base: FloatModel,
    answers: Answers,
    truth: NDArray[np.int64] | None,
) -> AnchorReport:
    kind, name = target.kind, _name(target.kind)
    path = bench.scratch / f"anchor.{kind}"
    bench.task(
        f"anchor_{kind}",
        f"quantizing by {name}",
        {f"model.{kind}": base.path, "calibration.npz": bench.scratch / CALIBRATION},
        {f"int8.{kind}": path},
    )
    own = bench.run(kind, path, what=f"running {name}")
    gate.refuse_not_finite(own.arrays, what=name)
    mine = _classes(bench, setting, kind, path, own)
    theirs = _classes(bench, setting, kind, base.path, answers)
    has_classes = truth is not None or metrics.are_probabilities(answers.arrays[0])
    raw = path.read_bytes()
    pairs = zip(answers.arrays, own.arrays, strict=True)
    return AnchorReport(
        name=name,
        target=target.value,
        size=len(raw),
        size_gzip=len(gzip.compress(raw, compresslevel=6, mtime=0)),
        sqnr_db=min(metrics.sqnr_db(a, b) for a, b in pairs),
        accuracy=None if truth is None else _share(mine, truth),
        agreement=_share(mine, theirs) if has_classes else None,
        measured=_measured(bench, setting, target, path, own, answers),
    )


def _measured(
    bench: Bench, setting: Setting, target: Target, path: Path, own: Answers, base: Answers
) -> Measured | None:
    """Its times, fed with integers where it takes those; none where variants are programs."""
    if setting.is_needed(base):
        return None
    taken = load_tensors(bench.scratch / HELD_OUT, "input")
    save_tensors(bench.scratch / _FED, "input", into_integers(taken, own.input_borders))
    return bench.measure(target.kind, path, what=f"measuring {_name(target.kind)}", data=_FED)


def _classes(
    bench: Bench, setting: Setting, kind: Format, path: Path, answers: Answers
) -> NDArray[np.int64] | None:
    if setting.is_needed(answers):
        return classes_of(bench, setting, kind, path, answers)
    return metrics.decide(answers.arrays[0])


def _share(mine: NDArray[np.int64] | None, theirs: NDArray[np.int64] | None) -> Share | None:
    if mine is None or theirs is None:
        return None
    return metrics.wilson(int((mine == theirs).sum()), len(mine))


def _name(kind: Format) -> str:
    return f"{TOOLS[kind]} defaults"
