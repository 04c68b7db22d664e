"""Arrays in files: examples that a person brings, and the `.npz` files of ours.

Nothing here unpickles. Files that we write are deterministic: the same arrays give the same bytes.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract.errors import OperatorError

Array: TypeAlias = "NDArray[np.generic]"
Arrays: TypeAlias = "tuple[Array, ...]"

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a ZIP can say


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays as an uncompressed `.npz`, entries in the order given, times fixed.

    Tensors of strings, which are arrays of objects, are written as text.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)
            entry.external_attr = 0o644 << 16
            buffer = io.BytesIO()
            plain = array.astype(np.str_) if array.dtype.kind == "O" else array
            np.lib.format.write_array(buffer, np.asarray(plain, order="C"), allow_pickle=False)
            archive.writestr(entry, buffer.getvalue())


def save_tensors(path: Path, prefix: str, arrays: Sequence[Array]) -> None:
    """Write arrays as `prefix.0`, `prefix.1`, …"""
    write_npz(path, {f"{prefix}.{index}": array for index, array in enumerate(arrays)})


def load_tensors(path: Path, prefix: str) -> Arrays:
    """The arrays `prefix.0`, `prefix.1`, … of a file of ours."""
    with np.load(path, allow_pickle=False) as file:
        count = sum(1 for name in file.files if name.startswith(f"{prefix}."))
        return tuple(file[f"{prefix}.{index}"] for index in range(count))


def load_examples(path: Path, *, what: str) -> dict[str, Array]:
    """The arrays that a person brought: one `.npy` as `x`, or the entries of an `.npz`.

    Raises:
        OperatorError: it cannot be read, is not such a file, holds objects, or is empty.
    """
    try:
        with path.open("rb") as opened:  # ours to close, also where it is damaged
            loaded = np.load(opened, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                found = {"x": loaded}
            else:
                with loaded as file:
                    found = {name: file[name] for name in file.files}
    except MemoryError as error:
        raise OperatorError(
            f"the {what} data {path} holds more than there is memory for ({error})",
            hint="the file is damaged, or fewer examples will do",
        ) from None
    except OSError as error:
        raise OperatorError(
            f"cannot read the {what} data {path}: {error.strerror or error}"
        ) from None
    except (ValueError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise OperatorError(
            f"the {what} data {path} is not a .npy or .npz file of plain arrays ({error})",
            hint="numpy.save or numpy.savez writes one; object arrays are not read",
        ) from None
    if not found or any(array.ndim == 0 or len(array) == 0 for array in found.values()):
        raise OperatorError(f"the {what} data {path} holds no examples")
    return found
