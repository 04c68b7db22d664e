"""Tables in: CSV with a line of names, or Parquet; columns of numbers become float32 [N, F].

CSV is RFC 4180 in UTF-8. A cell that is empty or no number is refused, with its place.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Array
from edgefleet_converter.readers.wish import MAX_BYTES, MAX_EXAMPLES, Table

PARQUET: Final = b"PAR1"
MAX_COLUMNS: Final = 100_000


def read_csv(path: Path, wish: Table) -> dict[str, Array]:
    """`x` [N, F] of the columns, and `y` [N] if the column of the truth is there.

    Raises:
        OperatorError: not such a file, or a cell that is no number.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            names = next(lines, [])
            picked = _columns(path, names, wish)
            place = names.index(wish.truth) if wish.truth in names else None
            rows: list[list[float]] = []
            truth: list[str] = []
            for line in lines:
                if not line:
                    continue
                if len(line) != len(names):
                    raise OperatorError(
                        f"{path}, line {lines.line_num}: {len(line)} cells, not {len(names)}"
                    )
                at = f"{path}, line {lines.line_num}"
                rows.append([_number(line[i], at, names[i]) for i in picked])
                if place is not None:
                    truth.append(line[place])
                _bound(path, len(rows), len(picked))
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise OperatorError(f"{path} is no CSV file that can be read: {error}") from None
    if not rows:
        raise OperatorError(f"{path} holds no examples")
    found: dict[str, Array] = {"x": np.asarray(rows, np.float32)}
    return found | {"y": _truth(truth)} if place is not None else found


def read_parquet(path: Path, wish: Table) -> dict[str, Array]:
    """The same of a Parquet file, whose columns must be numbers; that of the truth may be text.

    Raises:
        OperatorError: not such a file, a column of another kind, or a value that is missing.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise OperatorError(
            f"{path} is a Parquet file, and pyarrow is not installed", hint="pip install pyarrow"
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            picked = [names[i] for i in _columns(path, names, wish)]
            _bound(path, file.metadata.num_rows, len(picked))
            wanted = [*picked, *([wish.truth] if wish.truth in names else [])]
            table = file.read(columns=wanted)
    except (arrow.ArrowException, OSError) as error:
        first = str(error).splitlines()[0][:300]
        raise OperatorError(f"{path} is no Parquet file that can be read: {first}") from None
    if table.num_rows == 0:
        raise OperatorError(f"{path} holds no examples")
    columns = [_filled(path, table, name) for name in picked]
    for name, column in zip(picked, columns, strict=True):
        if column.dtype.kind not in "iufb":
            raise OperatorError(f"{path}: column {name!r} is no column of numbers")
    found: dict[str, Array] = {"x": np.stack(columns, axis=1).astype(np.float32)}
    if wish.truth in names:
        truth = _filled(path, table, wish.truth)
        found["y"] = truth.astype(np.str_) if truth.dtype.kind == "O" else truth
    return found


def _filled(path: Path, table: Any, name: str) -> Array:
    column = table.column(name)
    if column.null_count:
        raise OperatorError(f"{path}: column {name!r} has {column.null_count} missing values")
    array: Array = column.to_numpy()
    return array


def _columns(path: Path, names: Sequence[str], wish: Table) -> list[int]:
    """The places of the columns that the model takes."""
    if len(names) > MAX_COLUMNS or len(set(names)) != len(names):
        raise OperatorError(
            f"{path} has two columns of one name, or more than {MAX_COLUMNS}",
            hint="the first line names the columns",
        )
    wanted = wish.columns or [name for name in names if name != wish.truth]
    missing = [name for name in wanted if name not in names]
    if missing or not wanted:
        raise OperatorError(
            f"{path} has no column {missing[0] if missing else 'that a model takes'!r}",
            hint=f"it has {', '.join(names[:20]) or 'none'}",
        )
    return [names.index(name) for name in wanted]


def _bound(path: Path, rows: int, columns: int) -> None:
    if rows > MAX_EXAMPLES or rows * columns * 4 > MAX_BYTES:
        raise OperatorError(
            f"{path} has more than {MAX_EXAMPLES} rows, or fills {MAX_BYTES >> 30} GiB",
            hint="fewer examples are enough: hundreds, not millions",
        )


def _number(text: str, at: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise OperatorError(
            f"{at}, column {name!r}: {text[:40]!r} is not a number",
            hint="data.table.columns names the columns that the model takes, data.table.truth the "
            "true class",
        ) from None


def _truth(texts: list[str]) -> Array:
    """Whole numbers, numbers or names: the first of these that all of them are."""
    try:
        return np.asarray([int(text) for text in texts], np.int64)
    except (ValueError, OverflowError):
        pass
    try:
        return np.asarray([float(text) for text in texts])
    except ValueError:
        return np.asarray(texts)
