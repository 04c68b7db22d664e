"""The process that does one step of a build: `python -m edgefleet_converter.worker`.

Reads `job.json` in its working directory, does the task on the files beside it, and leaves
`result.json` last of all. Started by `isolation.py` and by nothing else. Heavy libraries are loaded
by the task that needs them.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import EdgefleetError
from edgefleet_converter.isolation import JOB, RESULT
from edgefleet_converter.lifeline import die_with_parent
from edgefleet_converter.toolchain import missing_hint

Task = Callable[..., "dict[str, Json]"]

TASKS: Final = {
    "sklearn_to_onnx": "edgefleet_converter.sources.sklearn:convert",
    "read_data": "edgefleet_converter.readers.reading:read",
    "torch_read": "edgefleet_converter.sources.torch:read",
    "torch_convert": "edgefleet_converter.sources.torch:convert",
    "tensorflow_read": "edgefleet_converter.sources.tensorflow:read",
    "tensorflow_convert": "edgefleet_converter.sources.tensorflow:convert",
    "tensorflow_from_tflite": "edgefleet_converter.sources.tflite:to_onnx",
    "boost_convert": "edgefleet_converter.sources.boost:convert",
    "optimize_onnx": "edgefleet_converter.passes.finish_onnx:optimize",
    "split_onnx": "edgefleet_converter.passes.finish_onnx:split",
    "weigh": "edgefleet_converter.weighing:weigh",
    "tidy_onnx": "edgefleet_converter.sources.onnx:tidy",
    "quantize_onnx": "edgefleet_converter.passes.quantize_onnx:quantize",
    "write_tflite": "edgefleet_converter.passes.write_tflite:write",
    "make_onnx": "edgefleet_converter.passes.make_onnx:make",
    "make_tflite": "edgefleet_converter.passes.quantize_tflite:make",
    "prune_onnx": "edgefleet_converter.passes.prune_onnx:write_pruned",
    "choose_lambdas": "edgefleet_converter.passes.prune_onnx:choose_grid",
    "torch_prune": "edgefleet_converter.passes.prune_torch:cut",
    "read_operators": "edgefleet_converter.passes.read_operators:read",
    "name_tflite": "edgefleet_converter.passes.name_tflite:rename",
    "search_graph_onnx": "edgefleet_converter.passes.try_onnx:make_graph",
    "search_make_onnx": "edgefleet_converter.passes.try_onnx:make_candidates",
    "search_graph_tflite": "edgefleet_converter.passes.try_tflite:read_layers",
    "search_make_tflite": "edgefleet_converter.passes.try_tflite:make_candidates",
    "search_time": "edgefleet_converter.search.timing:time_models",
    "search_metric": "edgefleet_converter.search.scoring:score",
    "anchor_onnx": "edgefleet_converter.passes.anchor_onnx:make",
    "anchor_tflite": "edgefleet_converter.passes.anchor_tflite:make",
    "clipping_onnx": "edgefleet_converter.passes.clipping:look_onnx",
    "clipping_tflite": "edgefleet_converter.passes.clipping:look_tflite",
    "read_onnx": "edgefleet_converter.sources.onnx:read",
    "describe": "edgefleet_converter.trial:describe",
    "run_model": "edgefleet_converter.trial:run_model",
    "compare": "edgefleet_converter.trial:compare",
    "measure": "edgefleet_converter.trial:measure",
    "measure_candidate": "edgefleet_converter.boards.trying:measure",
    "make_ready": "edgefleet_converter.boards.trying:make_ready",
    "check_golden": "edgefleet_converter.recheck:check",
    "run_whole": "edgefleet_converter.whole_trial:run",
    "compare_whole": "edgefleet_converter.whole_trial:compare",
    "measure_whole": "edgefleet_converter.whole_trial:measure",
}


def main() -> int:
    """Do the job in the working directory."""
    job = json.loads(Path(JOB).read_text("utf-8"))
    _limit(job["memory_mib"])
    warnings.simplefilter("ignore")  # of the libraries; what matters is measured afterwards
    try:
        result: dict[str, Json] = {"value": _task(job["task"])(**job["params"])}
    except EdgefleetError as error:
        result = {"error": error.message, "hint": error.hint}
    except ModuleNotFoundError as error:
        result = {"error": f"{error.name} is not installed", "hint": missing_hint(job["task"])}
    except MemoryError:
        result = {"out_of_memory": True}
    except Exception as error:  # noqa: BLE001 - the process boundary: a library may raise anything
        traceback.print_exc()
        if "bad_alloc" in str(error) or "allocate memory" in str(error).lower():
            result = {"out_of_memory": True}
        else:
            first = str(error).strip().splitlines()[0][:300] if str(error).strip() else ""
            result = {"error": f"{type(error).__name__}: {first}"}
    Path(RESULT).write_text(json.dumps(result), "utf-8")
    return 0


def _task(name: str) -> Task:
    module, _, function = TASKS[name].partition(":")
    task: Task = getattr(importlib.import_module(module), function)
    return task


def _limit(memory_mib: int) -> None:
    """Die with the parent, cap memory, write no core."""
    die_with_parent()
    size = memory_mib * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    sys.exit(main())
