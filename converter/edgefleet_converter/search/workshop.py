"""Where the search has things made: worker processes do the work, the cache keeps what they made.

A batch of candidates shares a process. Where that dies, each is made in a process of its own, and
the one that kills it is out.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgefleet_contract import codec
from edgefleet_contract.bundle import Format
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Arrays, load_tensors, save_tensors
from edgefleet_converter.assembly import tool_versions
from edgefleet_converter.bench import CALIBRATION, Bench, number, texts
from edgefleet_converter.fitting import Needs
from edgefleet_converter.search.cache import Cache, digest_of
from edgefleet_converter.search.candidate import Candidate, Graph, Operators, Ranges
from edgefleet_converter.search.entry import Entry, read_entry

SCHEMA: Final = 3
"""Rises when the same job gives something else than before: old entries are not found then."""

_BATCH: Final = 6
_NOTHING: Final = Needs(())


@dataclass(frozen=True, slots=True)
class Made:
    """A candidate that was made: its file, what it says to the examples, its quantum.

    `needs` is what a TFLite file asks of a runtime. `error` says why there is none.
    """

    model: bytes = b""
    outputs: Arrays = ()
    quantum: float = 0.0
    needs: Needs = _NOTHING
    error: str = ""


@dataclass(slots=True)
class Workshop:
    """For one target of one build. `examples` are those that the search sees."""

    bench: Bench
    kind: Format
    sources: dict[Format, Path]
    examples: Path
    cache: Cache
    _graphs: dict[float, Path] = field(default_factory=dict)
    _keys: dict[float, dict[str, Json]] = field(default_factory=dict)

    def graph(self, alpha: float) -> Graph | None:
        """The graph that is equalized with `alpha`; None where that cannot be had."""
        if self.kind is Format.ONNX:
            entry = self._onnx_graph(alpha)
            return None if entry is None else self._keep_onnx(alpha, entry)
        path = self._tflite_graph(alpha)
        if path is None:
            return None
        made = self.bench.scratch / "graph.entry"
        self.bench.task(
            "search_graph_tflite", "reading TFLite", {"model.tflite": path}, {"graph": made}
        )
        entry = read_entry(made)
        assert entry is not None  # the task wrote it just now
        self._graphs[alpha] = path
        self._keys[alpha] = {**self._common("tflite"), "graph": _sha256(path)}
        said = entry.said
        return Graph(
            alpha,
            int(alpha > 0),
            texts(said["layers"]),
            operators=_operators(said["operators"]),
            dynamic=_operators(said["dynamic"]),
            has_old_dense=said["has_dense"] is True,
        )

    def make(
        self, wanted: Sequence[Candidate], told: Callable[[int], bool] = lambda _: True
    ) -> dict[Candidate, Made]:
        """The candidates, made and run, batch by batch.

        Args:
            wanted: what to make, of graphs that were asked for before.
            told: is told how many are done; says whether to go on.
        """
        found: dict[Candidate, Made] = {}
        missing: dict[float, list[Candidate]] = {}
        for one in wanted:
            entry = self.cache.get(self._key(one))
            made = None if entry is None else _read(entry, self.bench.scratch)
            if made is not None:
                found[one] = made
            else:
                missing.setdefault(one.alpha, []).append(one)
        for alpha, all_of_it in missing.items():
            for start in range(0, len(all_of_it), _BATCH):
                if not told(len(found)):
                    return found
                found |= self._batch(alpha, all_of_it[start : start + _BATCH])
        return found

    def times(self, models: Sequence[bytes], inputs: Path, seconds: float) -> list[float]:
        """One inference of each, µs, on this machine."""
        files: dict[str, Path] = {"inputs.npz": inputs}
        for index, raw in enumerate(models):
            files[f"model.{index}"] = self.bench.scratch / f"timed.{index}"
            files[f"model.{index}"].write_bytes(raw)
        says = self.bench.task(
            "search_time",
            "measuring candidates",
            files,
            {},
            format=self.kind.value,
            count=len(models),
            seconds=seconds,
        )
        found = says["p50_us"]
        return [number(value) for value in found] if isinstance(found, list) else []

    def scores(self, outputs: Sequence[Arrays], truth: Arrays) -> list[float]:
        """What the recipe's metric says of each; `truth` holds one array, or none."""
        recipe = self.bench.recipe
        files = {"truth.npz": self.bench.scratch / "truth.npz"}
        save_tensors(files["truth.npz"], "truth", truth)
        for index, arrays in enumerate(outputs):
            files[f"outputs.{index}.npz"] = self.bench.scratch / f"scored.{index}.npz"
            save_tensors(files[f"outputs.{index}.npz"], "output", arrays)
        says = self.bench.task(
            "search_metric",
            "asking the metric",
            files,
            {},
            metric=recipe.search.metric,
            folder=str(recipe.path(".").resolve()),
            count=len(outputs),
        )
        found = says["values"]
        return [number(value) for value in found] if isinstance(found, list) else []

    def _batch(self, alpha: float, wanted: list[Candidate]) -> dict[Candidate, Made]:
        try:
            return self._in_one_process(alpha, wanted)
        except OperatorError as error:
            if len(wanted) == 1:
                return {wanted[0]: Made(error=error.message)}
        found: dict[Candidate, Made] = {}
        for one in wanted:
            found |= self._batch(alpha, [one])
        return found

    def _in_one_process(self, alpha: float, wanted: list[Candidate]) -> dict[Candidate, Made]:
        files = {
            f"graph.{self.kind}": self._graphs[alpha],
            "examples.npz": self.examples,
            "calibration.npz": self.bench.scratch / CALIBRATION,
        }
        if self.kind is Format.ONNX:
            files["ranges.json"] = self._graphs[alpha].with_suffix(".json")
        made = {
            f"made.{index}": self.bench.scratch / f"made.{index}" for index in range(len(wanted))
        }
        self.bench.task(
            f"search_make_{self.kind}",
            f"making candidates for {self.kind}-int8",
            files,
            made,
            candidates=[one.params() for one in wanted],
        )
        found: dict[Candidate, Made] = {}
        for one, path in zip(wanted, made.values(), strict=True):
            entry = read_entry(path)
            read = None if entry is None else _read(entry, self.bench.scratch)
            found[one] = read or Made(error="the worker wrote no whole result")
            if read is not None and not read.error:
                self.cache.put(self._key(one), path)
        return found

    def _key(self, one: Candidate) -> str:
        return digest_of(
            {
                **self._keys[one.alpha],
                "candidate": one.params(),
                "examples": _sha256(self.examples),
            }
        )

    def _common(self, kind: str) -> dict[str, Json]:
        return {
            "schema": SCHEMA,
            "kind": kind,
            "machine": platform.machine(),
            "tools": dict(tool_versions()),
            "calibration": _sha256(self.bench.scratch / CALIBRATION),
        }

    def _onnx_graph(self, alpha: float) -> Entry | None:
        source = self.sources.get(Format.ONNX)
        if source is None:
            return None
        key = {**self._common("onnx"), "model": _sha256(source), "alpha": alpha}
        self._keys[alpha] = key
        entry = self.cache.get(digest_of(key))
        if entry is not None:
            return entry
        made = self.bench.scratch / "graph.entry"
        files = {"model.onnx": source, "calibration.npz": self.bench.scratch / CALIBRATION}
        what = f"equalizing by {alpha:g}" if alpha else "calibrating"
        try:
            self.bench.task("search_graph_onnx", what, files, {"graph": made}, alpha=alpha)
        except OperatorError:
            if alpha:
                return None  # the graph as it is remains
            raise
        self.cache.put(digest_of(key), made)
        return read_entry(made)

    def _keep_onnx(self, alpha: float, entry: Entry) -> Graph:
        said = entry.said
        links = int(number(said["links"]))
        if alpha and not links:
            return Graph(alpha, 0, texts(said["layers"]))
        path = self.bench.scratch / f"graph-{alpha:g}.onnx"
        path.write_bytes(entry.files["model.onnx"])
        path.with_suffix(".json").write_bytes(entry.files["ranges.json"])
        self._graphs[alpha] = path
        return Graph(
            alpha,
            links,
            texts(said["layers"]),
            tuple(Ranges(one) for one in texts(said["ranges"])),
            _operators(said["operators"]),
            _operators(said["dynamic"]),
        )

    def _tflite_graph(self, alpha: float) -> Path | None:
        if not alpha:
            return self.sources[Format.TFLITE]
        entry = self._onnx_graph(alpha)
        if entry is None or not entry.said["links"]:
            return None
        source = self.bench.scratch / f"equal-{alpha:g}.onnx"
        source.write_bytes(entry.files["model.onnx"])
        path = self.bench.scratch / f"graph-{alpha:g}.tflite"
        try:
            self.bench.task(
                "write_tflite", "writing TFLite", {"model.onnx": source}, {"model.tflite": path}
            )
        except OperatorError:
            return None  # the file as it is remains
        return path


def _operators(said: Json) -> tuple[Operators, ...]:
    return tuple(Operators(one) for one in texts(said))


def _read(entry: Entry, scratch: Path) -> Made | None:
    if "error" in entry.said:
        return Made(error=str(entry.said["error"]))
    if "model" not in entry.files or "outputs.npz" not in entry.files:
        return None
    path = scratch / "entry.npz"
    path.write_bytes(entry.files["outputs.npz"])
    outputs = load_tensors(path, "output")
    told = entry.said.get("needs")
    needs = _NOTHING if told is None else codec.decode(Needs, told, what="operators")
    return Made(entry.files["model"], outputs, number(entry.said["quantum"]), needs)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
