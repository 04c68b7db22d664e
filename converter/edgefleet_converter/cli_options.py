"""What several commands have in common: options, and where their results go."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_converter.toolchain import VARIABLE

if TYPE_CHECKING:
    from edgefleet_converter.recipe import Measure, Recipe

RecipeFile = Annotated[Path, typer.Option(help="The recipe (TOML); see docs/spec/recipe.md.")]
OutFolder = Annotated[Path, typer.Option(help="The folder that bundles go to.")]
ModelVersion = Annotated[int, typer.Option(help="Its version: a number that rises.")]
PublisherKey = Annotated[
    str,
    typer.Option(
        metavar="PATH|URI",
        help="The publisher's private key: a PEM file, or pkcs11:token=…;object=…",
    ),
]
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Load a pickle, which runs the code in it.")
]
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
Device = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        metavar="PLACE",
        help="Where to measure: ssh://USER@HOST, https://HOST:PORT, or here; may be repeated.",
        show_default=False,
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        help="The token of boards whose agents run (https): one line.",
        show_default=False,
    ),
]
BoardCa = Annotated[
    Path | None,
    typer.Option(
        "--board-ca",
        help="A PEM file that vouches for boards whose agents run (https).",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def measured_on(
    recipe: Recipe, devices: list[str] | None, token_file: Path | None, ca: Path | None
) -> Recipe:
    """The recipe with the boards that the command line names instead of its own.

    Raises:
        OperatorError: one is no place to measure at.
    """
    measure = measure_on(recipe.measure, devices, token_file, ca)
    try:
        return replace(recipe, measure=measure)
    except Malformed as error:
        raise OperatorError(error.message, hint=error.hint) from None


def measure_on(
    measure: Measure, devices: list[str] | None, token_file: Path | None, ca: Path | None
) -> Measure:
    """What is measured, on the boards that the command line names.

    Raises:
        OperatorError: one is no place to measure at.
    """
    changes: dict[str, object] = {}
    if devices:
        changes["devices"] = tuple(devices)
    if token_file is not None:
        changes["token_file"] = str(token_file.absolute())
    if ca is not None:
        changes["ca"] = str(ca.absolute())
    try:
        return replace(measure, **changes)  # type: ignore[arg-type]  # fields by name
    except Malformed as error:
        raise OperatorError(error.message, hint=error.hint) from None


def kept(cache: Path | None, no_cache: bool) -> Path | bool:
    """Where `--cache` and `--no-cache` say that results are kept, as `api` takes it.

    Raises:
        OperatorError: both are said.
    """
    if no_cache and cache is not None:
        raise OperatorError("--cache and --no-cache: either, not both")
    return not no_cache if cache is None else cache


def results_console() -> Console:
    """Where results go; a pipe gets lines as wide as they are."""
    return Console() if sys.stdout.isatty() else Console(width=140)


def print_json(value: Json) -> None:
    """A result for scripts."""
    typer.echo(json.dumps(value, indent=2, sort_keys=True))
