"""`edge-convert prune` and `prune-channels`: what pruning costs and saves, on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edgefleet_contract import codec
from edgefleet_contract.errors import OperatorError
from edgefleet_converter import api
from edgefleet_converter.cli_options import (
    AsJson,
    CacheFolder,
    NoCache,
    Overrides,
    RecipeFile,
    Toolchain,
    TrustPickle,
    kept,
    print_json,
    results_console,
)


def prune(
    source: Annotated[Path, typer.Argument(help="The model, as `build` takes it; not TFLite.")],
    recipe: RecipeFile,
    lambdas: Annotated[
        str,
        typer.Option(
            metavar="L,L,…",
            help="The lambdas; by default 0 and eleven more, up to where no weight is left.",
            show_default=False,
        ),
    ] = "",
    overrides: Overrides = None,
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    page: Annotated[
        Path | None,
        typer.Option(
            "--report", help="Write a page (HTML) with the curves there.", show_default=False
        ),
    ] = None,
    trust_pickle: TrustPickle = False,
    toolchain: Toolchain = None,
    as_json: AsJson = False,
) -> None:
    """Show what zeroing small weights costs: a table over lambda. Builds nothing."""
    from edgefleet_converter.build_progress import progress_bar, steps_of_sweep
    from edgefleet_converter.sweep_table import print_sweep

    wanted, values = api.read_recipe(recipe, overrides or ()), _numbers(lambdas)
    if page is not None:
        from edgefleet_converter.showing import check_place

        check_place(page)
    with progress_bar(Console(stderr=True), steps_of_sweep(len(values))) as tell:
        found = api.prune(
            source,
            wanted,
            lambdas=values,
            trust_pickle=trust_pickle,
            toolchain=toolchain,
            cache=kept(cache, no_cache),
            progress=tell,
        )
    if page is not None:
        from edgefleet_converter.page import render_sweep_page
        from edgefleet_converter.showing import write_file

        write_file(page, render_sweep_page(source.name, found))
    if as_json:
        print_json(codec.encode(found))
    else:
        print_sweep(found, results_console())


def prune_channels(
    factory: Annotated[
        str, typer.Argument(help="module:function, which gives a trained torch.nn.Module.")
    ],
    recipe: Annotated[Path, typer.Option(help="The recipe (TOML) with [prune.structured].")],
    out: Annotated[Path, typer.Option(help="The ONNX file to write.")],
    toolchain: Annotated[
        Path | None,
        typer.Option(
            envvar="EDGE_CONVERT_TOOLCHAIN",
            help="An environment that has PyTorch and torch-pruning, where this one has not.",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Cut channels out of a PyTorch model, train it again, and write it as ONNX."""
    from edgefleet_converter.build_progress import progress_bar, steps_of_channels
    from edgefleet_converter.sweep_table import print_channels

    wanted = api.read_recipe(recipe, overrides or ())
    with progress_bar(Console(stderr=True), steps_of_channels()) as tell:
        found = api.prune_channels(
            factory,
            wanted,
            out=out,
            toolchain=toolchain,
            cache=kept(cache, no_cache),
            progress=tell,
        )
    if as_json:
        print_json(codec.encode(found))
    else:
        print_channels(found, results_console())


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(one) for one in text.split(",") if one.strip())
    except ValueError:
        raise OperatorError(
            f"--lambdas {text[:80]!r} are not numbers", hint="--lambdas 0,1e-4,1e-3"
        ) from None
