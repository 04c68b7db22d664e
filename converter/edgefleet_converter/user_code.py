"""Functions of the user's, `module:function`: found, called, and told where they fail.

A metric, a generator of examples, a factory of a model, a function that trains it: naming one in a
recipe or on the command line trusts it as code. All are looked for and fail alike: with the file,
the line and the error, `metric.py:12: ZeroDivisionError: …`, since the person who reads it wrote
that line. Runs in worker processes, in a toolchain's too: nothing but the standard library.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgefleet_contract.errors import EdgefleetError, OperatorError

_PLACES = ("site-packages", "dist-packages")


def find_function(name: str, folder: Path, *, what: str) -> Callable[..., Any]:
    """The function `module:function`; the module is looked for in `folder` first.

    Args:
        name: of the function.
        folder: is put in front of where modules come from, and stays there.
        what: says in errors what it was to be, such as `search.metric`.

    Raises:
        OperatorError: there is no such module or function, or the module fails while it is read.
    """
    module, _, function = name.partition(":")
    folder = folder.resolve()
    sys.path.insert(0, str(folder))
    with running(f"{what} {name}", folder):
        try:
            found: object = getattr(importlib.import_module(module), function, None)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # something that the module itself wants
            raise OperatorError(
                f"{what} {name}: there is no module {error.name!r}",
                hint=f"modules are looked for in {folder} first",
            ) from None
    if not callable(found):
        place = _shown(getattr(sys.modules[module], "__file__", None) or module, folder)
        problem = "has no function" if found is None else f"has a {type(found).__name__}, not one,"
        raise OperatorError(
            f"{what} {name}: {place} {problem} {function!r}", hint=_names(sys.modules[module])
        )
    return found


@contextmanager
def running(what: str, folder: Path) -> Iterator[None]:
    """Around code of the user's from `folder`: what it raises becomes an error with its place.

    Raises:
        OperatorError: it failed. MemoryError and our own errors go through.
    """
    try:
        yield
    except (EdgefleetError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - code of the user's
        place, line = where(error, folder)
        raise OperatorError(
            f"{what} failed at {place}: {say(error)}" if place else f"{what} failed: {say(error)}",
            hint=_elsewhere(error) or (f"the line is: {line}" if line else ""),
        ) from None


def _elsewhere(error: BaseException) -> str:
    """What to do about a path that was meant from the folder that the command was called in."""
    name = error.filename if isinstance(error, FileNotFoundError) else None
    if not isinstance(name, str | os.PathLike) or Path(name).is_absolute():
        return ""
    return (
        "it runs in a folder of its own; a file beside the module is "
        f"pathlib.Path(__file__).with_name({Path(name).name!r})"
    )


def where(error: BaseException, folder: Path) -> tuple[str, str]:
    """`file:line` of the user's own code that ran last, and that line; empty if none of it did."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_shown(error.filename, folder)}:{error.lineno}", (error.text or "").strip()
    own = [one for one in traceback.extract_tb(error.__traceback__) if _is_own(one, folder)]
    if not own:
        return "", ""
    return f"{_shown(own[-1].filename, folder)}:{own[-1].lineno}", (own[-1].line or "").strip()


def say(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _is_own(frame: traceback.FrameSummary, folder: Path) -> bool:
    path = Path(frame.filename)
    inside = path.parent if path.is_absolute() else (Path.cwd() / path).parent
    return inside.resolve().is_relative_to(folder.resolve()) and not any(
        part in inside.parts for part in _PLACES
    )


def _shown(file: str, folder: Path) -> str:
    path, root = Path(file).resolve(), folder.resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else file


def _names(module: object) -> str:
    found = [
        name
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == getattr(module, "__name__", "")
    ]
    return f"it has {', '.join(found[:8])}" if found else "it has no functions of its own"
