"""The environment that holds the frameworks which models come from: ours, or one beside it.

PyTorch, TensorFlow and the boosting libraries are large, want versions of their own, and are needed
on a desk alone. So they may live in an environment of theirs. Its Python runs this converter's own
code, which it is shown, with its libraries: nothing of edgefleet has to be installed there.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Final

from edgefleet_contract.errors import OperatorError

VARIABLE: Final = "EDGE_CONVERT_TOOLCHAIN"
EXTRAS: Final = {
    "torch": "converter-torch",
    "tensorflow": "converter-tensorflow",
    "boost": "converter-boost",
}
OLDEST_PYTHON: Final = (3, 11)
_PROBE_S: Final = 60


def extra_of(task: str) -> str:
    """The extra that brings the libraries of a task of the worker, by the task's first word.

    >>> extra_of("torch_convert"), extra_of("tidy_onnx")
    ('converter-torch', 'converter')
    """
    return EXTRAS.get(task.partition("_")[0], "converter")


def missing_hint(task: str) -> str:
    """What to do where a library of a task is not installed."""
    extra = extra_of(task)
    if extra == "converter":
        return "pip install 'edgefleet[converter]'"
    return (
        f"pip install 'edgefleet[{extra}]' here or in an environment of its own, which "
        f"--toolchain PATH or {VARIABLE} names"
    )


@cache
def python_of(toolchain: Path | None) -> Path | None:
    """The Python of a virtual environment, or the Python that was named; None for our own.

    Raises:
        OperatorError: there is none, or it is too old to run this code.
    """
    if toolchain is None:
        return None
    python = toolchain / "bin" / "python" if toolchain.is_dir() else toolchain
    if not python.is_file():
        raise OperatorError(
            f"the toolchain {toolchain} has no Python ({python} is not there)",
            hint="python3 -m venv PATH makes an environment; --toolchain takes its folder",
        )
    found = _version(python)
    if found < OLDEST_PYTHON:
        raise OperatorError(
            f"the toolchain {toolchain} has Python {found[0]}.{found[1]}, and "
            f"{OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} is the oldest that works"
        )
    return python.absolute()


def _version(python: Path) -> tuple[int, int]:
    try:
        done = subprocess.run(
            [python, "-I", "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
            timeout=_PROBE_S,
            check=True,
        )
        major, minor = done.stdout.split()
        return int(major), int(minor)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise OperatorError(f"the toolchain's {python} does not run: {error}") from None
