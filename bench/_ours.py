"""Our converter on one model: the source opened, the search and the fixed pass for each format.

Each is done in a process of its own, so that what it took is counted as it is for others.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench._anchors import Job, Made, waited
from bench._quant_models import Task
from edgefleet_contract.bundle import Format
from edgefleet_contract.errors import EdgefleetError
from edgefleet_converter import metrics
from edgefleet_converter.arrays import load_tensors
from edgefleet_converter.bench import CALIBRATION, HELD_OUT, Bench
from edgefleet_converter.opening import Opened, open_source
from edgefleet_converter.recipe import parse_recipe
from edgefleet_converter.search.cache import Cache
from edgefleet_converter.search.hunt import hunt
from edgefleet_converter.search.split import part
from edgefleet_converter.search.wishes import Objective
from edgefleet_converter.targets import Precision, Target

MAX_DROP = 0.01
TIMEOUT_S = 1500
RECIPE = f"""
targets = ["onnx-int8", "tflite-int8"]
[data]
calibration = "calibration.npy"
held_out = "held_out.npz"
[search]
max_accuracy_drop = {MAX_DROP}
[measure]
enabled = false
"""


@dataclass(frozen=True, slots=True)
class Ours:
    """A model that was opened: float files and their answers, in the scratch folder of a build."""

    task: Task
    bench: Bench
    opened: Opened

    def says(self, kind: Format) -> np.ndarray:
        """The float file's first output to all held-out examples."""
        answers = self.opened.models[kind].answers
        assert answers is not None
        return answers.arrays[0]

    @property
    def has_classes(self) -> bool:
        """Whether decisions count: classes are known, or probabilities are given."""
        first = self.says(next(iter(self.opened.models)))
        return self.task.truth is not None or metrics.are_probabilities(first)

    def job(self, kind: Format) -> Job:
        """What the quantizers of others get; of scikit-learn's models, what its exporter wrote."""
        exported = self.bench.scratch / "source.onnx"
        is_whole = kind is Format.ONNX and exported.exists()
        (calibration,) = load_tensors(self.bench.scratch / CALIBRATION, "input")
        (held_out,) = load_tensors(self.bench.scratch / HELD_OUT, "input")
        rows = part(len(held_out), self.bench.recipe.search.confirm_share).seen
        truth = self.task.truth
        return Job(
            exported if is_whole else self.opened.models[kind].path,
            self.task.model if self.task.keras else None,
            calibration,
            held_out[rows],
            self.says(kind)[rows],
            None if truth is None else truth[rows],
            self.has_classes,
            MAX_DROP,
            self.bench.recipe.budget.min_sqnr_db,
        )

    def search(self, kind: Format, cache: Path, objective: Objective = Objective.SIZE) -> Made:
        """What the search finds. For latency it measures times, and chooses by them."""
        recipe = self.bench.recipe
        times = replace(recipe.measure, enabled=objective.needs_latency)
        asked = replace(recipe, search=replace(recipe.search, objective=objective), measure=times)
        bench = replace(self.bench, recipe=asked)

        def find(into: Path) -> str:
            target = Target.TFLITE_INT8 if kind is Format.TFLITE else Target.ONNX_INT8
            found = hunt(bench, self.opened, target, self.task.truth, cache=Cache(cache))
            into.write_bytes(found.model)
            return found.report.chosen

        return self._apart(find)

    def fixed(self, kind: Format) -> Made:
        """Our pass without the search."""

        def quantize(into: Path) -> str:
            model = self.opened.models[kind].path
            inputs = {f"model.{kind}": model, CALIBRATION: self.bench.scratch / CALIBRATION}
            if kind is Format.ONNX:
                self.bench.task("quantize_onnx", "quantizing", inputs, {"int8.onnx": into})
            else:
                made = {"made.tflite": into}
                self.bench.task("make_tflite", "quantizing", inputs, made, way=Precision.INT8)
            return "minmax-all"

        return self._apart(quantize)

    def _apart(self, make: Callable[[Path], str]) -> Made:
        into, said = self.bench.scratch / "ours.int8", self.bench.scratch / "ours.json"
        for path in (into, said):
            path.unlink(missing_ok=True)
        begun = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            code = 1
            try:
                said.write_text(json.dumps({"recipe": make(into)}))
                code = 0
            except EdgefleetError as error:
                said.write_text(json.dumps({"error": error.message}))
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, cpu_s, peak_mb = waited(pid, TIMEOUT_S)
        seconds = time.monotonic() - begun
        words = json.loads(said.read_text()) if said.exists() else {"error": "it died"}
        model = into.read_bytes() if "recipe" in words else b""
        return Made(model, **words, seconds=seconds, cpu_s=cpu_s, peak_mb=peak_mb)


def open_task(task: Task, scratch: Path, toolchain: Path | None) -> Ours:
    """The float models of a source.

    Raises:
        OperatorError: as a build.
    """
    (scratch / "source").write_bytes(task.model)
    np.save(scratch / "calibration.npy", task.calibration)
    known = {} if task.truth is None else {"y": task.truth}
    np.savez(scratch / "held_out.npz", x=task.held_out, **known)
    targets = [f"{kind}-int8" for kind in task.formats]
    recipe = parse_recipe(RECIPE, folder=scratch, overrides=[f"targets={targets}"])
    bench = Bench(recipe, scratch, lambda _: None, toolchain)
    return Ours(task, bench, open_source(bench, scratch / "source", trust_pickle=False))
