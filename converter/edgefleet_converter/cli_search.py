"""`edge-convert search`: what int8 costs and brings, by every candidate; nothing is built."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from edgefleet_contract import codec
from edgefleet_converter import api
from edgefleet_converter.cli_options import (
    AsJson,
    BoardCa,
    CacheFolder,
    Device,
    NoCache,
    Overrides,
    Passphrase,
    PinFile,
    TokenFile,
    Toolchain,
    kept,
    measured_on,
    print_json,
    results_console,
)

if TYPE_CHECKING:
    from edgefleet_converter.search.figures import SearchReport


def search(
    source: Annotated[Path, typer.Argument(help="The model, as `build` takes it.")],
    recipe: Annotated[Path, typer.Option(help="The recipe (TOML); see docs/spec/recipe.md.")],
    overrides: Overrides = None,
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Load a pickle, which runs the code in it.")
    ] = False,
    toolchain: Toolchain = None,
    device: Device = None,
    key: Annotated[
        str,
        typer.Option(
            metavar="PATH|URI",
            help="The publisher's private key, for boards by https.",
            show_default=False,
        ),
    ] = "",
    passphrase_file: Passphrase = None,
    pin_file: PinFile = None,
    token_file: TokenFile = None,
    ca: BoardCa = None,
    as_json: AsJson = False,
) -> None:
    """Search for int8 recipes of the recipe's int8 targets, and show all candidates."""
    from edgefleet_converter.build_progress import progress_bar, steps_of_search
    from edgefleet_converter.signing import open_signer

    wanted = measured_on(api.read_recipe(recipe, overrides or ()), device, token_file, ca)
    signer = (
        open_signer(key, passphrase_file=passphrase_file, pin_file=pin_file)
        if key
        else nullcontext()
    )
    bar = progress_bar(Console(stderr=True), steps_of_search(wanted))
    with bar as tell, signer as private:
        reports = api.search(
            source,
            wanted,
            cache=kept(cache, no_cache),
            trust_pickle=trust_pickle,
            toolchain=toolchain,
            progress=tell,
            key=private,
        )
    if as_json:
        print_json({"searches": [codec.encode(report) for report in reports]})
        return
    _show(reports)


def _show(reports: tuple[SearchReport, ...]) -> None:
    from edgefleet_converter.search_tables import print_search

    console = results_console()
    for report in reports:
        print_search(report, console)
