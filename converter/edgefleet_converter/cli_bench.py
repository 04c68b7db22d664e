"""`edge-convert bench`: what the variants of a bundle, or of a recipe, cost on boards."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from edgefleet_contract import codec
from edgefleet_converter.cli_options import (
    AsJson,
    BoardCa,
    CacheFolder,
    Device,
    NoCache,
    Passphrase,
    PinFile,
    TokenFile,
    Toolchain,
    TrustPickle,
    kept,
    measure_on,
    print_json,
    results_console,
)
from edgefleet_converter.signing import open_signer

if TYPE_CHECKING:
    from edgefleet_converter.boards.figures import Heard
    from edgefleet_converter.recipe import Measure


def bench(
    source: Annotated[
        str,
        typer.Argument(help="A bundle directory, or with --recipe a model as `build` takes it."),
    ],
    device: Device = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="The recipe (TOML) whose targets are made and measured."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe."),
    ] = None,
    trust: Annotated[
        list[Path] | None,
        typer.Option(
            "--trust",
            metavar="PATH",
            help="A public key; may be repeated. The bundle must be signed by one of them.",
            show_default=False,
        ),
    ] = None,
    repeat: Annotated[
        int | None,
        typer.Option(
            min=1, max=20, help="Rounds, in turns; default: the recipe's, or 1.", show_default=False
        ),
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(
            min=10,
            max=100_000,
            help="Inferences timed in a round, at most; default: the recipe's, or 200.",
            show_default=False,
        ),
    ] = None,
    timeout_s: Annotated[
        int | None,
        typer.Option(
            "--timeout",
            min=1,
            max=3600,
            help="Seconds that a model has in a round; default: the recipe's, or 120.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        str,
        typer.Option(
            metavar="PATH|URI",
            help="The publisher's private key, for https: a PEM file, or pkcs11:token=…;object=…",
            show_default=False,
        ),
    ] = "",
    passphrase_file: Passphrase = None,
    pin_file: PinFile = None,
    token_file: TokenFile = None,
    ca: BoardCa = None,
    trust_pickle: TrustPickle = False,
    toolchain: Toolchain = None,
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Measure models on boards: load, latency, memory. Without --device, on this machine."""
    from edgefleet_converter import api
    from edgefleet_converter.build_progress import progress_bar, steps_of_bench
    from edgefleet_converter.recipe import Measure

    wanted = api.read_recipe(recipe, overrides or ()) if recipe is not None else None
    wish = measure_on(wanted.measure if wanted else Measure(), device, token_file, ca)
    said = {"repeat": repeat, "runs": runs, "timeout_s": timeout_s}
    changes = {name: one for name, one in said.items() if one is not None}
    wish = replace(wish, **changes)  # type: ignore[arg-type]  # fields by name
    signer = (
        open_signer(key, passphrase_file=passphrase_file, pin_file=pin_file)
        if key
        else nullcontext()
    )
    talk = Console(stderr=True)
    with signer as private, progress_bar(talk, steps_of_bench(wish, wanted)) as tell:
        found = api.bench(
            source,
            wanted,
            measure=wish,
            trust=trust or (),
            key=private,
            trust_pickle=trust_pickle,
            toolchain=toolchain,
            cache=kept(cache, no_cache),
            progress=tell,
        )
    _show(found, wish, as_json=as_json)


def _show(found: tuple[Heard, ...], wish: Measure, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "boards": [
                    {
                        "report": codec.encode(one.report),
                        "models": {name: codec.encode(of) for name, of in one.models.items()},
                    }
                    for one in found
                ]
            }
        )
        return
    from edgefleet_converter.boards.table import print_boards

    print_boards(found, wish.repeat, results_console())
