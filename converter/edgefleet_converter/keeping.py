"""Results of worker tasks, kept by the digest of all that they follow from: a build resumes.

A result follows from the files that went in, the parameters, the code here, the packages of the
Python that ran and the kind of processor. What is measured, what runs a user's code and what checks
a finished bundle is never kept.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache as once
from importlib import metadata, resources
from pathlib import Path
from typing import Final

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.digests import describe
from edgefleet_converter.search.cache import Cache, digest_of
from edgefleet_converter.search.entry import write_entry

LARGEST: Final = 256 << 20
"""Bytes of a result that is still kept."""

KEPT: Final = frozenset(
    {
        *("sklearn_to_onnx", "torch_read", "torch_convert", "tensorflow_read"),
        *("tensorflow_convert", "boost_convert", "tidy_onnx", "read_onnx", "describe"),
        *("write_tflite", "name_tflite", "prune_onnx", "choose_lambdas", "read_operators"),
        *("quantize_onnx", "make_onnx", "make_tflite", "anchor_onnx", "anchor_tflite"),
        *("tensorflow_from_tflite", "optimize_onnx", "split_onnx"),
        *("run_model", "compare", "run_whole", "compare_whole"),
        *("clipping_onnx", "clipping_tflite", "search_graph_tflite"),
    }
)

_PACKAGES: Final = ("edgefleet_contract", "edgefleet_processing", "edgefleet_converter")
_PROBE: Final = (
    "import json, sys; from importlib import metadata; print(json.dumps([sys.version, "
    "*sorted(f\"{d.metadata['Name']} {d.version}\" for d in metadata.distributions())]))"
)
_PROBE_S: Final = 60


@dataclass(frozen=True, slots=True)
class Keeper:
    """Keeps results of tasks in a cache."""

    cache: Cache

    def key(
        self,
        task: str,
        params: Mapping[str, Json],
        folder: Path,
        inputs: Iterable[str],
        python: Path | None,
    ) -> str:
        """What a result is kept under; empty where it is not. `inputs` lie in `folder`.

        Raises:
            OperatorError: the other Python does not run.
        """
        if not self.cache.is_there or task not in KEPT or _runs_foreign_code(params):
            return ""
        return digest_of(
            {
                "task": task,
                "params": dict(params),
                "inputs": {name: describe(folder / name).sha256 for name in sorted(inputs)},
                "code": code_digest(),
                "packages": packages(python),
                "processor": processor(),
            }
        )

    def take(self, key: str, folder: Path, outputs: Iterable[str]) -> dict[str, Json] | None:
        """What was said before, with the files of it put into `folder`; None where nothing is."""
        entry = self.cache.get(key) if key else None
        if entry is None or not set(outputs) <= set(entry.files):
            return None
        for name in outputs:
            (folder / name).write_bytes(entry.files[name])
        return entry.said

    def keep(
        self, key: str, said: Mapping[str, Json], folder: Path, outputs: Iterable[str]
    ) -> None:
        """Keep what was said, and these files in `folder`."""
        names = list(outputs)
        if not key or sum((folder / name).stat().st_size for name in names) > LARGEST:
            return
        whole = folder / "result.entry"
        write_entry(whole, said, {name: (folder / name).read_bytes() for name in names})
        self.cache.put(key, whole)


def _runs_foreign_code(params: Mapping[str, Json]) -> bool:
    """Whether what a task does depends on code that no digest here covers."""
    return bool(params.get("is_pickle") or params.get("trusted_types"))


@once
def code_digest() -> str:
    """Of the code that works here: a mended program finds no result of the one before."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for path in _sources(Path(str(resources.files(package)))):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _sources(root: Path) -> list[Path]:
    return sorted(root.rglob("*.py"))


@once
def packages(python: Path | None) -> str:
    """Of the packages of a Python and their versions, ours by default.

    Raises:
        OperatorError: it does not run.
    """
    if python is None:
        here = [platform.python_version()]
        here += sorted(f"{one.metadata['Name']} {one.version}" for one in metadata.distributions())
        return hashlib.sha256(json.dumps(here).encode()).hexdigest()
    try:
        done = subprocess.run(
            [python, "-I", "-c", _PROBE], capture_output=True, timeout=_PROBE_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise OperatorError(f"the toolchain's {python} does not run: {error}") from None
    return hashlib.sha256(done.stdout).hexdigest()


@once
def processor() -> str:
    """Which kernels run: architecture, model and instruction sets of the processor."""
    told = {platform.machine()}
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    wanted = ("model name", "flags", "Features", "CPU part")
    told |= {line for line in lines if line.startswith(wanted)}
    return hashlib.sha256("\n".join(sorted(told)).encode()).hexdigest()
