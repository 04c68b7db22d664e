"""`edge-convert prune` and `prune-channels`: what pruning costs and saves, on a terminal."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edgefleet_contract import codec
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.cli_options import AsJson, print_json


def prune(
    source: Annotated[Path, typer.Argument(help="The model: ONNX, or scikit-learn as .skops.")],
    recipe: Annotated[Path, typer.Option(help="The recipe (TOML); see docs/spec/recipe.md.")],
    lambdas: Annotated[
        str,
        typer.Option(
            metavar="L,L,…",
            help="The lambdas; by default 0 and eleven more, up to where no weight is left.",
            show_default=False,
        ),
    ] = "",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe."),
    ] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Load a pickle, which runs the code in it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what zeroing small weights costs: a table over lambda. Writes no file."""
    from edgefleet_converter.recipe import load_recipe
    from edgefleet_converter.sweep import sweep
    from edgefleet_converter.sweep_table import print_sweep

    wanted = load_recipe(recipe, overrides or ())
    talk = Console(stderr=True)
    status = talk.status("starting") if talk.is_terminal else None
    with status or nullcontext():
        found = sweep(
            source,
            wanted,
            lambdas=_numbers(lambdas),
            trust_pickle=trust_pickle,
            progress=status.update if status is not None else lambda _: None,
        )
    if as_json:
        print_json(codec.encode(found))
    else:
        print_sweep(found, _console())


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
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Cut channels out of a PyTorch model, train it again, and write it as ONNX."""
    from edgefleet_converter.channels import prune_channels as work
    from edgefleet_converter.recipe import load_recipe
    from edgefleet_converter.sweep_table import print_channels

    wanted = load_recipe(recipe, overrides or ())
    talk = Console(stderr=True)
    status = talk.status("starting") if talk.is_terminal else None
    with status or nullcontext():
        found = work(
            factory,
            wanted,
            out=out,
            toolchain=toolchain,
            progress=status.update if status is not None else lambda _: None,
        )
    if as_json:
        print_json(codec.encode(found))
    else:
        print_channels(found, _console())


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=140)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(one) for one in text.split(",") if one.strip())
    except ValueError:
        raise OperatorError(
            f"--lambdas {text[:80]!r} are not numbers", hint="--lambdas 0,1e-4,1e-3"
        ) from None
