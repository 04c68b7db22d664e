"""Examples from a function of the user's, `module:function`: what it yields, one at a time.

Naming it in a recipe runs it: a recipe with such a name is trusted as the module beside it is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Array
from edgefleet_converter.readers.wish import MAX_BYTES, MAX_EXAMPLES
from edgefleet_converter.user_code import find_function, running

NAME: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def read_generator(path: Path) -> dict[str, Array]:
    """What the function yields, stacked. The module is looked for in the folder of the path first.

    It yields arrays, pairs of an array and its true class, or dictionaries of arrays by name, in
    which `y` is the true class.

    Raises:
        OperatorError: no such function, it fails, or yields unlike things, nothing or too much.
    """
    found: dict[str, list[Array]] = {}
    size = 0
    for count, item in enumerate(_yielded(path), 1):
        example = _example(item, path.name)
        if count > 1 and set(example) != set(found):
            raise OperatorError(
                f"{path.name}: example {count - 1} has {', '.join(example)}, the first one has "
                f"{', '.join(found)}"
            )
        size += sum(array.nbytes for array in example.values())
        if count > MAX_EXAMPLES or size > MAX_BYTES:
            raise OperatorError(
                f"{path.name} yields more than {MAX_EXAMPLES} examples or {MAX_BYTES >> 30} GiB",
                hint="let it end: itertools.islice(examples, 512)",
            )
        for name, array in example.items():
            found.setdefault(name, []).append(array)
    if not found:
        raise OperatorError(f"{path.name} yields no examples")
    return {name: _stacked(path.name, name, arrays) for name, arrays in found.items()}


def _yielded(path: Path) -> Any:
    made = find_function(path.name, path.parent, what="generator")
    with running(f"generator {path.name}", path.parent):
        yield from made()


def _example(item: Any, name: str) -> dict[str, Array]:
    if isinstance(item, dict):
        parts = {str(key): np.asarray(value) for key, value in item.items()}
    elif isinstance(item, tuple) and len(item) == 2:
        parts = {"x": np.asarray(item[0]), "y": np.asarray(item[1])}
    else:
        parts = {"x": np.asarray(item)}
    if not parts or any(array.dtype.kind == "O" for array in parts.values()):
        raise OperatorError(
            f"{name} yields {type(item).__name__}, which is no array",
            hint="yield an array, a pair (array, y), or a dictionary of arrays",
        )
    return parts


def _stacked(where: str, name: str, arrays: list[Array]) -> Array:
    if len({array.shape for array in arrays}) != 1:
        raise OperatorError(f"{where}: {name!r} has examples of different shapes")
    return np.stack(arrays)
