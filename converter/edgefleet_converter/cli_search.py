"""`edge-convert search`: what int8 costs and brings, by every candidate; nothing is built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from edgefleet_contract import codec
from edgefleet_converter import api
from edgefleet_converter.cli_options import (
    AsJson,
    CacheFolder,
    NoCache,
    Overrides,
    kept,
    print_json,
)

if TYPE_CHECKING:
    from edgefleet_converter.search.figures import SearchReport


def search(
    source: Annotated[
        Path, typer.Argument(help="The model: ONNX, TFLite, or scikit-learn as .skops.")
    ],
    recipe: Annotated[Path, typer.Option(help="The recipe (TOML); see docs/spec/recipe.md.")],
    overrides: Overrides = None,
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Load a pickle, which runs the code in it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Search for int8 recipes of the recipe's int8 targets, and show all candidates."""
    from edgefleet_converter.build_progress import progress_bar, steps_of_search

    wanted = api.read_recipe(recipe, overrides or ())
    with progress_bar(Console(stderr=True), steps_of_search(wanted)) as tell:
        reports = api.search(
            source,
            wanted,
            cache=kept(cache, no_cache),
            trust_pickle=trust_pickle,
            progress=tell,
        )
    if as_json:
        print_json({"searches": [codec.encode(report) for report in reports]})
        return
    _show(reports)


def _show(reports: tuple[SearchReport, ...]) -> None:
    from edgefleet_converter.cli import results_console
    from edgefleet_converter.search_tables import print_search

    console = results_console()
    for report in reports:
        print_search(report, console)
