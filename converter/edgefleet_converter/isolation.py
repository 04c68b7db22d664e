"""One step of a build in a process of its own: a JSON job in, files and a JSON result out.

Model libraries crash, hang, write to their input and report success for files that nobody can read.
So each step works in an empty folder on copies, under limits of time and memory, and what it leaves
is believed only if it said that it was done and the files are there. Nothing of the worker's
output reaches the terminal; its last line is quoted where it died.

Not a sandbox against a hostile model: it keeps accidents in, and the desk trusts its own models.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.reasons import Reason
from edgefleet_converter.recipe import Worker
from edgefleet_converter.scratch import scratch

if TYPE_CHECKING:
    from edgefleet_converter.keeping import Keeper

JOB: Final = "job.json"
RESULT: Final = "result.json"
_LOG: Final = "log.txt"
_CODE: Final = "code"
_TEMPORARY: Final = "tmp"
_PACKAGES: Final = ("edgefleet_contract", "edgefleet_processing", "edgefleet_converter")


class WorkerFailed(OperatorError):
    """A worker that did not end by itself; `reason` is a device's word for the same."""

    def __init__(self, message: str, *, reason: Reason, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


def run_task(
    task: str,
    *,
    what: str,
    limits: Worker,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path] | None = None,
    params: Mapping[str, Json] | None = None,
    python: Path | None = None,
    keeper: Keeper | None = None,
) -> dict[str, Json]:
    """What a task of `edgefleet_converter.worker` returned, with its files in place.

    Args:
        task: its name.
        what: says in errors what was being done.
        limits: seconds and MiB.
        inputs: name in the worker's folder -> file or folder, copied there.
        outputs: name in the worker's folder -> where the file goes.
        params: values for the task.
        python: of another environment than ours, which holds the libraries of the task.
        keeper: has results of tasks like this one, and is given this one's.

    Raises:
        OperatorError: the task refused (its own words), crashed, hung, was killed, or ran out of
            memory. No output file exists then.
    """
    wanted = outputs or {}
    given = dict(params or {})
    with scratch() as folder:
        for local, path in inputs.items():
            try:
                _copy(path, folder / local)
            except OSError as error:
                raise OperatorError(f"{what}: cannot read {path}: {error.strerror}") from None
        key = keeper.key(task, given, folder, inputs, python) if keeper else ""
        value = keeper.take(key, folder, wanted) if keeper else None
        if value is None:
            job = {"task": task, "memory_mib": limits.memory_mib, "params": given}
            (folder / JOB).write_text(json.dumps(job), "utf-8")
            code = _run(folder, timeout_s=limits.timeout_s, what=what, python=python)
            value = _result(folder, code, limits=limits, what=what)
            for local in wanted:
                if not (folder / local).is_file() or not (folder / local).stat().st_size:
                    raise OperatorError(f"{what}: the worker said it was done but wrote no {local}")
            if keeper:
                keeper.keep(key, value, folder, wanted)
        for local, path in wanted.items():
            shutil.copyfile(folder / local, path)
    return value


def environment() -> dict[str, str]:
    """The worker's environment: ours, with onnxruntime's telemetry off and fixed hashing."""
    return {
        **os.environ,
        "ORT_DISABLE_TELEMETRY": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "2",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def environment_elsewhere(folder: Path) -> dict[str, str]:
    """The same for a Python of another environment: it finds our packages and none of our own."""
    code = folder / _CODE
    code.mkdir()
    for package in _PACKAGES:
        (found,) = importlib.import_module(package).__path__
        (code / package).symlink_to(Path(found).resolve())
    ours = {k: v for k, v in environment().items() if k not in ("PYTHONHOME", "VIRTUAL_ENV")}
    return {**ours, "PYTHONPATH": str(code), "PYTHONDONTWRITEBYTECODE": "1"}


def _copy(path: Path, to: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, to)
    else:
        shutil.copyfile(path, to)


def _run(folder: Path, *, timeout_s: int, what: str, python: Path | None) -> int:
    command = [str(python or sys.executable), "-P", "-m", "edgefleet_converter.worker"]
    variables = environment() if python is None else environment_elsewhere(folder)
    temporary = folder / _TEMPORARY  # what libraries leave there goes with the folder
    temporary.mkdir(exist_ok=True)
    variables["TMPDIR"] = str(temporary)
    with (folder / _LOG).open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=variables,
            stdin=subprocess.PIPE,  # nothing is written: it closes when this process dies
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise WorkerFailed(
                f"{what}: not done after {timeout_s} s",
                reason=Reason.TRIAL_TIMEOUT,
                hint="worker.timeout_s in the recipe allows more",
            ) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            assert process.stdin is not None
            process.stdin.close()


def _result(folder: Path, code: int, *, limits: Worker, what: str) -> dict[str, Json]:
    try:
        result = json.loads((folder / RESULT).read_text("utf-8"))
    except (OSError, ValueError):
        raise _crash(folder, code, what=what) from None
    if error := result.get("error"):
        raise OperatorError(f"{what}: {error}", hint=result.get("hint", ""))
    if result.get("out_of_memory"):
        raise WorkerFailed(
            f"{what}: needs more than {limits.memory_mib} MiB",
            reason=Reason.MEMORY_EXCEEDED,
            hint="worker.memory_mib in the recipe allows more",
        )
    if code != 0:
        raise _crash(folder, code, what=what)
    value: dict[str, Json] = result["value"]
    return value


def _crash(folder: Path, code: int, *, what: str) -> OperatorError:
    lines = (folder / _LOG).read_text("utf-8", "replace").strip().splitlines()
    last = f" (its last words: {lines[-1].strip()[:300]})" if lines else ""
    if code < 0:
        name = signal.Signals(-code).name
        return WorkerFailed(
            f"{what}: the worker process was killed by {name}{last}",
            reason=Reason.TRIAL_CRASHED,
            hint="the model or its library crashes, or the system ran out of memory",
        )
    text = f"{what}: the worker process ended with code {code}{last}"
    return WorkerFailed(text, reason=Reason.TRIAL_CRASHED)
