"""Files in a folder, one subfolder for each class: in the order of their paths, with the class.

Files that begin with a dot are left aside. Files at the top have no class; then there are no
subfolders.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Array
from edgefleet_converter.readers.wish import MAX_BYTES, MAX_EXAMPLES

Read: TypeAlias = "Callable[[Path], Array]"


def list_files(folder: Path) -> tuple[list[Path], list[str]]:
    """The files, and their classes; no classes where they lie at the top.

    Raises:
        OperatorError: there are none, too many, or both kinds.
    """
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    top = [path for path in entries if path.is_file()]
    files, classes = top, []
    if len(top) != len(entries):
        if top:
            raise OperatorError(
                f"{folder} has files beside subfolders: {top[0].name}",
                hint="one subfolder for each class, or files alone",
            )
        pairs = [
            (path, inner.name)
            for inner in entries
            for path in sorted(inner.iterdir())
            if not path.name.startswith(".")
        ]
        files, classes = [path for path, _ in pairs], [name for _, name in pairs]
    if not files:
        raise OperatorError(f"{folder} holds no examples")
    if len(files) > MAX_EXAMPLES:
        raise OperatorError(f"{folder} holds {len(files)} files: more than {MAX_EXAMPLES}")
    return files, classes


def read_files(folder: Path, read: Read) -> dict[str, Array]:
    """`x`: what `read` makes of each file, stacked; `y`: the class names, if there are classes.

    Raises:
        OperatorError: a file is unlike the first one, or all of them are more than fits.
    """
    files, classes = list_files(folder)
    found: list[Array] = []
    size = 0
    for path in files:
        array = read(path)
        if found and array.shape != found[0].shape:
            raise OperatorError(
                f"{path} has shape {list(array.shape)}, {files[0].name} has {list(found[0].shape)}",
                hint="data.images.size or data.audio.samples in the recipe makes them alike",
            )
        size += array.nbytes
        if size > MAX_BYTES:
            raise OperatorError(
                f"{folder}: the first {len(found)} examples fill {MAX_BYTES >> 30} GiB",
                hint="fewer or smaller examples are enough: hundreds, not millions",
            )
        found.append(array)
    arrays = {"x": np.stack(found)}
    return arrays | {"y": np.asarray(classes)} if classes else arrays
