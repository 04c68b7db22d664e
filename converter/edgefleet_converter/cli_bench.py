"""`edge-convert bench`: what the variants of a bundle, or of a recipe, cost on boards."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from edgefleet_contract import codec
from edgefleet_contract.bundle import MANIFEST
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import KeyRing
from edgefleet_converter.cli_options import (
    AsJson,
    BoardCa,
    Device,
    Passphrase,
    PinFile,
    TokenFile,
    Toolchain,
    print_json,
)

if TYPE_CHECKING:
    from edgefleet_converter.bench import Progress
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
            help="A public key; may be repeated. The bundle must be signed by one of them.",
            show_default=False,
        ),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, max=20, help="Rounds, in turns.")] = 1,
    runs: Annotated[
        int, typer.Option(min=10, max=100_000, help="Inferences timed in a round, at most.")
    ] = 200,
    timeout_s: Annotated[
        int,
        typer.Option("--timeout", min=1, max=3600, help="Seconds that a model has in a round."),
    ] = 120,
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
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Load a pickle, which runs the code in it.")
    ] = False,
    toolchain: Toolchain = None,
    as_json: AsJson = False,
) -> None:
    """Measure models on boards: load, latency, memory. Without --device, on this machine."""
    from edgefleet_converter.boards import benching
    from edgefleet_converter.boards.places import HERE
    from edgefleet_converter.recipe import Measure, load_recipe
    from edgefleet_converter.signing import open_signer, read_public_file

    wanted = load_recipe(recipe, overrides or ()) if recipe is not None else None
    wish = Measure(
        runs=runs,
        repeat=repeat,
        timeout_s=timeout_s,
        devices=tuple(device or (wanted.measure.devices if wanted else ()) or (HERE,)),
        token_file="" if token_file is None else str(token_file.absolute()),
        ca="" if ca is None else str(ca.absolute()),
    )
    talk = Console(stderr=True)
    status = talk.status("starting") if talk.is_terminal else None
    tell: Progress = status.update if status is not None else lambda _: None
    signer = (
        open_signer(key, passphrase_file=passphrase_file, pin_file=pin_file)
        if key
        else nullcontext()
    )
    with status or nullcontext(), signer as private, tempfile.TemporaryDirectory() as scratch:
        if wanted is not None:
            folder, ring = benching.make(
                source,
                wanted,
                Path(scratch),
                trust_pickle=trust_pickle,
                toolchain=toolchain,
                progress=tell,
            )
        else:
            folder, ring = _bundle(source), KeyRing(map(read_public_file, trust or ()))
        if not len(ring):
            raise OperatorError(
                "a bundle's models are run where a trusted key signed them", hint="--trust KEY.pub"
            )
        found = benching.measure(folder, ring, wish, private, tell)
    _show(found, wish, as_json=as_json)


def _bundle(source: str) -> Path:
    if not (Path(source) / MANIFEST).is_file():
        raise OperatorError(f"{source} is no bundle", hint="--recipe RECIPE for a model")
    return Path(source)


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
    from edgefleet_converter.cli import results_console

    print_boards(found, wish.repeat, results_console())
