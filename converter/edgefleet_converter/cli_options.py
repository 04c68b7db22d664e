"""Options that several commands have, and JSON on stdout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgefleet_contract.canonical import Json

Passphrase = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", help="The key's passphrase: the file's first line.", show_default=False
    ),
]
PinFile = Annotated[
    Path | None,
    typer.Option("--pin-file", help="The token's PIN: the file's first line.", show_default=False),
]
Created = Annotated[
    int | None,
    typer.Option(
        help="Seconds since 1970 to write as the date; default: SOURCE_DATE_EPOCH, or now.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def print_json(value: Json) -> None:
    """A result for scripts."""
    typer.echo(json.dumps(value, indent=2, sort_keys=True))
