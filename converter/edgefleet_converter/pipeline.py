"""A build from end to end: a model, a recipe and a key in; a signed bundle and its report out.

The shell of the room: it moves files between worker processes and asks the cores (`gate`,
`metrics`, `golden`) what to make of the answers. Nothing stands in the output folder until all of
it does.
"""

from __future__ import annotations

import gzip
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import numpy as np

from edgefleet_contract import __version__, codec
from edgefleet_contract.bundle import (
    Format,
    Limits,
    Manifest,
    Role,
    TensorSpec,
    Variant,
    is_name,
    sha256,
)
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_converter import gate, golden, metrics
from edgefleet_converter.arrays import Arrays, load_tensors, save_tensors
from edgefleet_converter.examples import load_held_out, load_inputs
from edgefleet_converter.isolation import run_task
from edgefleet_converter.labels import find_labels
from edgefleet_converter.pack import describe_files, finish, refuse_existing, staging
from edgefleet_converter.recipe import Headroom, Recipe, Target
from edgefleet_converter.report import DataFile, Measured, Report, VariantReport, render_report
from edgefleet_converter.runners import Kernels, check_inputs
from edgefleet_converter.sources.kind import COMES_IN, Kind, recognise

AGENT_MIN: Final = "0.1.0"
ONNX_RUNTIMES: Final = {"onnxruntime": "1.19.0"}
TFLITE_RUNTIMES: Final = {"litert": "2.0.0", "tflite-runtime": "2.14.0"}
LABELS: Final = "labels.txt"
REPORT: Final = "report.json"
_HARDWARE: Final = {"x86_64": "x86-64", "aarch64": "arm64", "armv7l": "armhf"}
_TOOLS: Final = ("onnx", "onnxruntime", "ai-edge-litert", "ai-edge-quantizer", "skl2onnx")

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Built:
    """A finished bundle: where it is, what it says, what was measured."""

    path: Path
    manifest: Manifest
    report: Report


@dataclass(frozen=True, slots=True)
class _Float:
    """A float model that is known to be a copy of the source."""

    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    answers: Arrays
    parity: float


def build(
    source: Path | str,
    recipe: Recipe,
    *,
    out: Path | str,
    model: str,
    version: int,
    key: PrivateKey,
    created: int | None = None,
    trust_pickle: bool = False,
    progress: Progress = lambda _: None,
) -> Built:
    """The signed bundle of a model, written to `out/<model>-<version>/`.

    Args:
        source: a model file; its kind is told by its content.
        recipe: see `edgefleet_converter.recipe`.
        out: the folder of bundles.
        model: its name in the fleet.
        version: rises with every release.
        key: the publisher's, ECDSA.
        created: seconds since 1970; by default SOURCE_DATE_EPOCH, or now.
        trust_pickle: a pickle may run any code while it loads; say True only for your own files.
        progress: told what is being done.

    Raises:
        OperatorError: something that a person can mend; nothing is written then.
    """
    build = _Build(Path(source), recipe, f"{model}-{version}", progress)
    _check_names(model, version, key)
    target = Path(out) / build.name
    refuse_existing(target)
    stamp = created if created is not None else _created()
    with tempfile.TemporaryDirectory(prefix="edge-convert-") as scratch:
        build.open(Path(scratch), trust_pickle=trust_pickle)
        with staging(Path(out), build.name) as folder:
            roles: dict[str, Role] = {}
            variants = [build.variant(name, folder, roles) for name in recipe.targets]
            report = build.report(model, version, tuple(told for _, told in variants))
            (folder / REPORT).write_bytes(render_report(report))
            roles[REPORT] = Role.REPORT
            if build.labels:
                (folder / LABELS).write_text("".join(f"{x}\n" for x in build.labels), "utf-8")
                roles[LABELS] = Role.LABELS
            manifest = Manifest(
                model=model,
                version=version,
                created=stamp,
                agent_min=AGENT_MIN,
                variants=tuple(variant for variant, _ in variants),
                files=describe_files(folder, roles),
                labels=LABELS if build.labels else None,
            )
            progress("signing")
            finish(folder, manifest, key, target)
    return Built(target, manifest, report)


class _Build:
    """The state of one build: its data, its float models, its scratch folder."""

    def __init__(self, source: Path, recipe: Recipe, name: str, progress: Progress) -> None:
        self.source, self.recipe, self.name, self.progress = source, recipe, name, progress
        self.labels: tuple[str, ...] = ()
        self.parity: dict[str, float] = {}
        self._floats: dict[Format, _Float] = {}

    def open(self, scratch: Path, *, trust_pickle: bool) -> None:
        """Read the data and bring the source to float ONNX (and TFLite), each held to parity."""
        self.kind = recognise(self.source)
        _refuse_kind(self.kind, self.source, trust_pickle=trust_pickle)
        data, self.scratch = self.recipe.data, scratch
        self.calibration = load_inputs(self.recipe.path(data.calibration), what="calibration")
        self.held_out = load_held_out(self.recipe.path(data.held_out))
        save_tensors(scratch / "calibration.npz", "input", self.calibration.inputs)
        save_tensors(scratch / "held_out.npz", "input", self.held_out.inputs)
        expected, named = self._open_source()
        onnx = self._float(Format.ONNX, scratch / "model.onnx", expected)
        self.labels = find_labels(self.recipe, named, onnx.answers[0])
        self.truth = self.held_out.classes(self.labels, onnx.answers[0])
        self._check_calibration(onnx.inputs)
        if any(target.is_tflite for target in self.recipe.targets):
            what = "writing TFLite"
            self.progress(what)
            path = scratch / "model.tflite"
            self._task("write_tflite", what, {"model.onnx": onnx.path}, {"model.tflite": path})
            self._float(Format.TFLITE, path, onnx.answers)

    def variant(
        self, target: Target, folder: Path, roles: dict[str, Role]
    ) -> tuple[Variant, VariantReport]:
        """One variant in a folder of its own, with its golden vectors, and its figures."""
        kind = Format.TFLITE if target.is_tflite else Format.ONNX
        base = self._floats[kind]
        (folder / target).mkdir()
        path, vectors = f"{target}/model.{kind}", f"{target}/golden.npz"
        quantum = 0.0
        if target.is_int8:
            quantum = self._quantize(kind, base, folder / path, what=f"quantizing {target}")
        else:
            (folder / path).write_bytes(base.path.read_bytes())
        specs, answers = self._run(kind, folder / path, what=f"running {target}")
        gate.refuse_not_finite(answers, what=str(target))
        figures = self._judge(target, base, answers)
        if target.is_int8:
            quantum = golden.output_quantum(base.answers, quantum)
        others = self._other_kernels(kind, folder / path)
        chosen = golden.choose(
            answers,
            tuple(others.values()),
            count=self.recipe.golden.vectors,
            quantum=quantum,
        )
        self._write_golden(folder / vectors, kind, folder / path, chosen.rows)
        roles[path], roles[vectors] = Role.MODEL, Role.GOLDEN
        measured = self._measure(target, kind, folder / path)
        raw = (folder / path).read_bytes()
        told = replace(
            figures,
            size=len(raw),
            size_gzip=len(gzip.compress(raw, compresslevel=6, mtime=0)),
            golden_vectors=len(chosen.rows),
            golden_max_abs_err=chosen.max_abs_err_e6 / 1e6,
            kernels=(Kernels.DEFAULT.value, *others),
            measured=measured,
        )
        variant = Variant(
            name=target.value,
            format=kind,
            precision="int8" if target.is_int8 else "float32",
            model=path,
            golden=vectors,
            max_abs_err_e6=chosen.max_abs_err_e6,
            inputs=specs[0],
            outputs=specs[1],
            runtimes=dict(TFLITE_RUNTIMES if kind is Format.TFLITE else ONNX_RUNTIMES),
            limits={measured.hardware: _limits(measured, self.recipe.limits)} if measured else {},
        )
        return variant, told

    def report(self, model: str, number: int, variants: tuple[VariantReport, ...]) -> Report:
        """The report of the whole build."""
        raw = self.source.read_bytes()
        return Report(
            model=model,
            version=number,
            source_kind=self.kind.value,
            source=DataFile(sha256(raw), len(raw)),
            calibration=self.calibration.described,
            held_out=self.held_out.described,
            parity=self.parity,
            variants=variants,
            tools={"edgefleet": __version__, **_tool_versions()},
        )

    def _open_source(self) -> tuple[Arrays, tuple[str, ...]]:
        """`model.onnx` in the scratch folder; the source's answers, and class names it carries."""
        held_out, raw = self.scratch / "held_out.npz", self.scratch / "source.onnx"
        if self.kind is Kind.ONNX:
            _, answers = self._run(Format.ONNX, self.source, what="running the ONNX model")
            raw, named = self.source, []
        else:
            what = "converting the scikit-learn model"
            self.progress(what)
            says = self._task(
                "sklearn_to_onnx",
                what,
                {"source": self.source, "inputs.npz": held_out},
                {"model.onnx": raw, "outputs.npz": self.scratch / "answers.npz"},
                is_pickle=self.kind is Kind.PICKLE,
                trusted_types=list(self.recipe.source.trusted_types),
            )
            answers = load_tensors(self.scratch / "answers.npz", "output")
            named = _texts(says["labels"])
        gate.refuse_not_finite(answers, what="the source model")
        what = "reading the ONNX model"
        self.progress(what)
        says = self._task(
            "tidy_onnx", what, {"source": raw}, {"model.onnx": self.scratch / "model.onnx"}
        )
        return answers, tuple(named or _texts(says["labels"]))

    def _float(self, kind: Format, path: Path, expected: Arrays) -> _Float:
        name = f"{kind}-float32"
        specs, answers = self._run(kind, path, what=f"running {name}")
        gate.refuse_not_finite(answers, what=name)
        tolerance = self.recipe.parity.max_abs_err
        error = gate.refuse_disparity(expected, answers, tolerance=tolerance, what=name)
        self.parity[name] = error
        self._floats[kind] = _Float(path, specs[0], specs[1], answers, error)
        return self._floats[kind]

    def _check_calibration(self, specs: tuple[TensorSpec, ...]) -> None:
        try:
            check_inputs(specs, self.calibration.inputs)
        except OperatorError as error:
            raise OperatorError(f"calibration data: {error.message}", hint=error.hint) from None

    def _quantize(self, kind: Format, base: _Float, path: Path, *, what: str) -> float:
        self.progress(what)
        says = self._task(
            f"quantize_{kind}",
            what,
            {f"model.{kind}": base.path, "calibration.npz": self.scratch / "calibration.npz"},
            {f"int8.{kind}": path},
        )
        quantum = says["quantum"]
        return quantum if isinstance(quantum, float) else 0.0

    def _judge(self, target: Target, base: _Float, answers: Arrays) -> VariantReport:
        """Its figures against the float model, within the budget."""
        before, after, same = None, None, None
        if self.truth is not None:
            before = metrics.accuracy(base.answers[0], self.truth)
            after = metrics.accuracy(answers[0], self.truth)
        if self.held_out.is_classification or self.labels:
            same = metrics.agreement(base.answers[0], answers[0])
        sqnr = min(metrics.sqnr_db(a, b) for a, b in zip(base.answers, answers, strict=True))
        worst = max(metrics.max_abs_err(a, b) for a, b in zip(base.answers, answers, strict=True))
        drop = gate.accuracy_drop(before, after, same)
        gate.refuse_over_budget(drop, sqnr, self.recipe.budget, what=str(target))
        return VariantReport(target.value, 0, 0, sqnr, worst, 0, 0.0, (), before, after, same)

    def _run(
        self, kind: Format, path: Path, *, what: str, rows: tuple[int, ...] | None = None
    ) -> tuple[tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]], Arrays]:
        """The first load of a file, in a worker, and its answers to (rows of) the held-out data."""
        self.progress(what)
        inputs = self.scratch / "held_out.npz"
        if rows is not None:
            inputs = self.scratch / "rows.npz"
            save_tensors(inputs, "input", [x[list(rows)] for x in self.held_out.inputs])
        answers = self.scratch / "answers.npz"
        says = self._task(
            "run_model",
            what,
            {"model": path, "inputs.npz": inputs},
            {"outputs.npz": answers},
            format=kind.value,
            kernels=[Kernels.DEFAULT.value],
        )
        specs = (_specs(says["inputs"]), _specs(says["outputs"]))
        return specs, load_tensors(answers, Kernels.DEFAULT.value)

    def _other_kernels(self, kind: Format, path: Path) -> dict[str, Arrays]:
        """Answers of the other implementations that can run the file; none is needed."""
        found: dict[str, Arrays] = {}
        names = [Kernels.PLAIN] + ([Kernels.REFERENCE] if kind is Format.TFLITE else [])
        answers = self.scratch / "answers.npz"
        inputs = {"model": path, "inputs.npz": self.scratch / "held_out.npz"}
        for name in names:
            try:
                self._task(
                    "run_model",
                    f"comparing {name} kernels",
                    inputs,
                    {"outputs.npz": answers},
                    format=kind.value,
                    kernels=[name.value],
                )
            except OperatorError:
                continue  # the file runs on the default kernels: that was the condition
            found[name.value] = load_tensors(answers, name.value)
        return found

    def _write_golden(self, path: Path, kind: Format, model: Path, rows: tuple[int, ...]) -> None:
        _, answers = self._run(kind, model, what="writing golden vectors", rows=rows)
        inputs = [array[list(rows)] for array in self.held_out.inputs]
        entries = {f"input.{i}": array for i, array in enumerate(inputs)}
        entries |= {f"output.{i}": array for i, array in enumerate(answers)}
        from edgefleet_converter.arrays import write_npz

        write_npz(path, entries)

    def _measure(self, target: Target, kind: Format, path: Path) -> Measured | None:
        if not self.recipe.measure.enabled:
            return None
        what = f"measuring {target}"
        self.progress(what)
        says = self._task(
            "measure",
            what,
            {"model": path, "inputs.npz": self.scratch / "held_out.npz"},
            {},
            format=kind.value,
            runs=self.recipe.measure.runs,
        )
        machine = platform.machine()
        return codec.decode(
            Measured, {**says, "hardware": _HARDWARE.get(machine, machine)}, what="measurement"
        )

    def _task(
        self,
        task: str,
        what: str,
        inputs: dict[str, Path],
        outputs: dict[str, Path],
        **params: Json,
    ) -> dict[str, Json]:
        return run_task(
            task,
            what=what,
            limits=self.recipe.worker,
            inputs=inputs,
            outputs=outputs,
            params=params,
        )


def _check_names(model: str, number: int, key: PrivateKey) -> None:
    if not is_name(model):
        raise OperatorError(
            f"{model[:80]!r} cannot name a model",
            hint="lower-case letters, digits, '.', '_' and '-', at most 64",
        )
    if number < 1:
        raise OperatorError(f"version {number}: the lowest is 1")
    if not key.public.algorithm.startswith("ECDSA"):
        raise OperatorError(
            f"the key is {key.public.algorithm}; model.sig needs ECDSA",
            hint="edge-convert keys new PATH makes one",
        )


def _refuse_kind(kind: Kind, source: Path, *, trust_pickle: bool) -> None:
    if kind is Kind.PICKLE and not trust_pickle:
        raise OperatorError(
            f"{source} is a pickle, and loading a pickle runs whatever code is in it",
            hint="save the model with skops.io.dump, or say --trust-pickle if the file is yours",
        )
    if kind not in (Kind.ONNX, Kind.SKOPS, Kind.PICKLE):
        raise OperatorError(
            f"{source} is a {kind} model, which does not come in yet",
            hint=f"what comes in: {COMES_IN}",
        )


def _created() -> int:
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return int(time.time())
    if not text.isdigit():
        raise OperatorError(f"SOURCE_DATE_EPOCH is {text!r}, not a number of seconds")
    return int(text)


def _limits(measured: Measured, room: Headroom) -> Limits:
    return Limits(
        ram_mib=round(measured.ram_mib) + room.ram_extra_mib,
        load_ms=max(room.load_floor_ms, round(room.load_factor * measured.load_ms)),
        p95_us=max(room.p95_floor_ms * 1000, round(room.p95_factor * measured.p95_us)),
    )


def _specs(value: Json) -> tuple[TensorSpec, ...]:
    found = value if isinstance(value, list) else []
    return tuple(codec.decode(TensorSpec, item, what="tensor") for item in found)


def _texts(value: Json) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _tool_versions() -> dict[str, str]:
    found = {}
    for name in _TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**found, "numpy": np.__version__}
