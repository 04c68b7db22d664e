"""`fleet audit`, `fleet export`: what happened, and all there is, for other programs to keep."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from edgefleet_contract.errors import OperatorError
from edgefleet_fleet import cli_show as show
from edgefleet_fleet.cli_options import DEFAULT_URL, Data, Json, Url, client
from edgefleet_fleet.export_columns import COLUMNS, Noun
from edgefleet_fleet.moments import parse_moment

Since = Annotated[str, typer.Option(help="Not older than: 2h, 7d, or a date.")]


class Format(StrEnum):
    """How an export is written."""

    JSONL = "jsonl"
    CSV = "csv"


def audit(
    since: Since = "",
    who: Annotated[str, typer.Option(help="By whom; * is any text.")] = "*",
    what: Annotated[str, typer.Option(help="What was done, such as 'rollout.*'.")] = "*",
    limit: Annotated[int, typer.Option("-n", help="At most so many, the newest.", min=1)] = 200,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Who changed what, when, from which address; newest first."""
    moment = parse_moment(since, now=int(time.time()))
    rows = client(url, data).list("/audit", since=moment, who=who, what=what)
    found = list(itertools.islice(rows, limit))
    columns = ("at", "who", "what", "subject", "detail", "address")
    if not as_json:
        found = [row | {"at": show.moment(row["at"])} for row in found]
    show.rows(found, as_json=as_json, columns=columns)


def export(
    noun: Annotated[Noun, typer.Argument(help="What.")],
    out: Annotated[
        Path | None, typer.Option(help="A file, whole or not at all; left out: stdout.")
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="Lines of JSON, or a table.")
    ] = Format.JSONL,
    since: Since = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Lines of JSON, whatever --format says.")
    ] = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Write out all devices, rollouts, bundles, the audit trail or the telemetry, oldest first."""
    moment = parse_moment(since, now=int(time.time()))
    lines = client(url, data).lines(f"/export/{noun}?since={moment}")
    with _whole(out) if out is not None else contextlib.nullcontext(sys.stdout) as file:
        if form is Format.CSV and not as_json:
            count = _write_table(lines, noun, file)
        else:
            count = 0
            for line in lines:
                file.write(line + "\n")
                count += 1
    if out is not None:
        show.talk(f"{out}: {count} {noun}")


def _write_table(lines: Iterator[str], noun: Noun, file: IO[str]) -> int:
    columns = COLUMNS[noun]
    table = csv.writer(file, lineterminator="\n")
    table.writerow(columns)
    count = 0
    for line in lines:
        row = json.loads(line)
        table.writerow([cell(row.get(column)) for column in columns])
        count += 1
    return count


def cell(value: Any) -> str:
    """A value in a table. What a spreadsheet would run as a formula is marked as text.

    >>> cell("=1+1"), cell(-1), cell({"a": 1}), cell(None)
    ("'=1+1", '-1', '{"a":1}', '')
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value[:1] in tuple("=+-@\t\r") and value[:1] else value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[IO[str]]:
    """A file to write, which gets its name once it is whole."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with part.open("x", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise OperatorError(f"cannot write {path}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
