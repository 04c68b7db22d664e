"""Options that several commands have, and JSON on stdout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.toolchain import VARIABLE

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
Toolchain = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        envvar=VARIABLE,
        help="A virtual environment, or its Python, with the framework that the model comes from.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe."),
]
CacheFolder = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Where results are kept for the next run; default: EDGE_CONVERT_CACHE, or the "
        "user's cache folder.",
        show_default=False,
    ),
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Keep no results, and take none.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def kept(cache: Path | None, no_cache: bool) -> Path | bool:
    """Where `--cache` and `--no-cache` say that results are kept, as `api` takes it.

    Raises:
        OperatorError: both are said.
    """
    if no_cache and cache is not None:
        raise OperatorError("--cache and --no-cache: either, not both")
    return not no_cache if cache is None else cache


def print_json(value: Json) -> None:
    """A result for scripts."""
    typer.echo(json.dumps(value, indent=2, sort_keys=True))
