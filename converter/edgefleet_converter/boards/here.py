"""This machine where there is no board: candidates in processes of their own, and its facts.

What comes of it says that it is the desk's. The kernels are those of the desk's runtimes.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final, cast

from edgefleet_contract import __version__, codec
from edgefleet_contract.bundle import Digest, Format
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.measuring import (
    Board,
    Candidate,
    Figures,
    MeasureJob,
    MeasureReport,
    Moment,
    Result,
)
from edgefleet_contract.reasons import Reason
from edgefleet_converter.bench import hardware_here
from edgefleet_converter.isolation import WorkerFailed, run_task
from edgefleet_converter.recipe import Worker

_ENGINES: Final = {Format.ONNX: "onnxruntime", Format.TFLITE: "litert"}
_PACKAGES: Final = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert"}
_MODELS: Final = ("/sys/firmware/devicetree/base/model", "/sys/class/dmi/id/product_name")


def measure_here(
    job: MeasureJob,
    places: Mapping[Digest, Path],
    worker: Worker,
    told: Callable[[str], None],
) -> MeasureReport:
    """What the desk says of a job. What crashes, hangs or takes too much is told as such."""
    before = _moment()
    results: list[Result] = []
    for number in range(job.repeat):
        for one in job.candidates:
            told(f"round {number + 1} of {job.repeat}: {one.name} on this machine")
            results.append(_measured(one, number, job, places, worker))
    return MeasureReport(_board(), before, _moment(), tuple(results))


def _measured(
    one: Candidate, number: int, job: MeasureJob, places: Mapping[Digest, Path], worker: Worker
) -> Result:
    local = {path: f"file{i}" for i, path in enumerate(one.files)}
    params: dict[str, Json] = {
        "job": {"variant": codec.encode(one.variant), "files": cast("dict[str, Json]", local)},
        "runs": job.runs,
        "seconds": job.seconds,
    }
    try:
        says = run_task(
            "measure_candidate",
            what=f"measuring {one.name}",
            limits=Worker(min(job.timeout_s, worker.timeout_s), worker.memory_mib),
            inputs={local[path]: places[digest] for path, digest in one.files.items()},
            params=params,
        )
    except WorkerFailed as error:
        return Result(one.name, number, reason=error.reason, detail=error.message)
    except OperatorError as error:
        return Result(one.name, number, reason=Reason.LOAD_FAILED, detail=error.message)
    off = says["max_abs_err"]
    allowed = one.variant.max_abs_err_e6
    if not isinstance(off, int | float) or off * 1e6 > allowed * (1 + 1e-6):
        how = f"differs by {off:.6g}" if isinstance(off, int | float) else "is of another shape"
        text = f"an output {how}, allowed are {allowed / 1e6:.6g}"
        return Result(one.name, number, reason=Reason.GOLDEN_MISMATCH, detail=text)
    value: dict[str, Json] = {"engine": _ENGINES[one.variant.format], "accelerator": "cpu", **says}
    return Result(one.name, number, codec.decode(Figures, value, what="figures"))


def _board() -> Board:
    return Board(
        hw=hardware_here(),
        machine=platform.machine(),
        model=next((text for path in _MODELS if (text := _text(Path(path)))), "unknown"),
        os=_os(),
        kernel=platform.release(),
        python=platform.python_version(),
        agent=__version__,
        cpus=os.cpu_count() or 1,
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        runtimes={name: metadata.version(package) for name, package in _PACKAGES.items()},
    )


def _moment() -> Moment:
    return Moment(load1=round(os.getloadavg()[0], 2))


def _os() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.platform())
    except OSError:
        return platform.platform()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""
