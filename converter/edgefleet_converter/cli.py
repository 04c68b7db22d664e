"""`edge-convert`: build, join, search, verify, inspect and keys, on a terminal.

Results go to stdout, talk to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused.
Model libraries are loaded by the commands that need them.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from edgefleet_contract import codec
from edgefleet_contract.bundle import Manifest, parse_manifest, sha256
from edgefleet_contract.canonical import Json
from edgefleet_contract.directory import read_documents, verify_directory
from edgefleet_contract.errors import EdgefleetError, PeerError
from edgefleet_contract.keys import KeyRing
from edgefleet_converter.cli_keys import keys_app
from edgefleet_converter.cli_options import AsJson, Created, Passphrase, PinFile, print_json
from edgefleet_converter.cli_search import search
from edgefleet_converter.papers import read_papers
from edgefleet_converter.signing import open_signer, read_public_file

if TYPE_CHECKING:
    from edgefleet_converter.assembly import Built

PROG = "edge-convert"
FAILED, USAGE, REFUSED, INTERRUPTED = 1, 2, 3, 130
_WRONG_USAGE: type[Exception] = typer.BadParameter.__mro__[2]  # ClickException, wherever it is

app = typer.Typer(
    name=PROG,
    help="Turn a trained model into a signed bundle that devices run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(keys_app, name="keys")
app.command()(search)


@app.command()
def build(
    source: Annotated[
        Path, typer.Argument(help="The model: ONNX, TFLite, or scikit-learn as .skops.")
    ],
    recipe: Annotated[Path, typer.Option(help="The recipe (TOML); see docs/spec/recipe.md.")],
    out: Annotated[Path, typer.Option(help="The folder that bundles go to.")],
    model: Annotated[str, typer.Option(help="The model's name in the fleet.")],
    version: Annotated[int, typer.Option(help="Its version: a number that rises.")],
    key: Annotated[
        str,
        typer.Option(
            metavar="PATH|URI",
            help="The publisher's private key: a PEM file, or pkcs11:token=…;object=…",
        ),
    ],
    passphrase_file: Passphrase = None,
    pin_file: PinFile = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe."),
    ] = None,
    created: Created = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Load a pickle, which runs the code in it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Convert, measure and sign a model: writes OUT/MODEL-VERSION."""
    from edgefleet_converter import pipeline
    from edgefleet_converter.recipe import load_recipe

    wanted = load_recipe(recipe, overrides or ())
    talk = Console(stderr=True)
    status = talk.status("starting") if talk.is_terminal else None
    signer = open_signer(key, passphrase_file=passphrase_file, pin_file=pin_file)
    with signer as private, status or nullcontext():
        built = pipeline.build(
            source,
            wanted,
            out=out,
            model=model,
            version=version,
            key=private,
            created=created,
            trust_pickle=trust_pickle,
            progress=status.update if status is not None else lambda _: None,
        )
    _tell(built, as_json)


@app.command()
def join(
    graph: Annotated[Path, typer.Argument(help="The graph (TOML); see docs/spec/recipe.md.")],
    out: Annotated[Path, typer.Option(help="The folder that bundles go to.")],
    model: Annotated[str, typer.Option(help="The name of the whole in the fleet.")],
    version: Annotated[int, typer.Option(help="Its version: a number that rises.")],
    key: Annotated[
        str,
        typer.Option(
            metavar="PATH|URI",
            help="The publisher's private key: a PEM file, or pkcs11:token=…;object=…",
        ),
    ],
    trust: Annotated[
        list[Path] | None,
        typer.Option(
            help="A public key that may have signed the bundles; repeatable; else that of --key.",
            show_default=False,
        ),
    ] = None,
    passphrase_file: Passphrase = None,
    pin_file: PinFile = None,
    created: Created = None,
    as_json: AsJson = False,
) -> None:
    """Join bundles and model files to one signed bundle that answers as one model."""
    from edgefleet_converter import join as joining
    from edgefleet_converter.join_recipe import load_join

    wanted = load_join(graph)
    talk = Console(stderr=True)
    status = talk.status("starting") if talk.is_terminal else None
    signer = open_signer(key, passphrase_file=passphrase_file, pin_file=pin_file)
    with signer as private, status or nullcontext():
        trusted = [read_public_file(path) for path in trust or ()] or [private.public]
        built = joining.join(
            wanted,
            source=graph,
            out=out,
            model=model,
            version=version,
            key=private,
            trusted=KeyRing(trusted),
            created=created,
            progress=status.update if status is not None else lambda _: None,
        )
    _tell(built, as_json)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory.")],
    key: Annotated[list[Path], typer.Option(help="A publisher's public key; may be repeated.")],
    as_json: AsJson = False,
) -> None:
    """Check a bundle: its signature, and that its files are exactly what was signed."""
    found = verify_directory(bundle, KeyRing(read_public_file(path) for path in key))
    if as_json:
        print_json(
            {
                "model": found.manifest.model,
                "version": found.manifest.version,
                "sha256": found.digest,
                "signer": found.signer,
                "files": len(found.manifest.files),
                "bytes": found.manifest.total_size,
            }
        )
        return
    typer.echo(
        f"{found.manifest.name}: verified, {len(found.manifest.files)} files, "
        f"{found.manifest.total_size} bytes, signed by {found.signer[:8]}"
    )


@app.command()
def inspect(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory.")], as_json: AsJson = False
) -> None:
    """Show what a bundle says about itself. Does not check its signature: see `verify`."""
    from edgefleet_converter.tables import (
        print_card,
        print_manifest,
        print_provenance,
        print_report,
    )

    raw, _ = read_documents(bundle)
    manifest = parse_manifest(raw)
    report = _report(bundle, manifest)
    papers = read_papers(bundle, manifest)
    if as_json:
        print_json(
            {
                "signature_checked": False,
                "sha256": sha256(raw),
                "manifest": codec.encode(manifest),
                "report": report,
                "card": codec.encode(papers.card) if papers.card else None,
                "provenance": codec.encode(papers.provenance) if papers.provenance else None,
                "papers_differ": list(papers.differing),
            }
        )
    else:
        console = results_console()
        print_manifest(manifest, console)
        if report is not None:
            from edgefleet_converter.report import Report

            print_report(codec.decode(Report, report, what="report.json", unknown=True), console)
        if papers.card is not None:
            print_card(papers.card, console)
        if papers.provenance is not None:
            print_provenance(papers.provenance, console)
    for path in papers.differing:
        typer.echo(f"{PROG}: the papers speak of another {path} than bundle.json does", err=True)
    typer.echo(f"{PROG}: the signature was not checked; `{PROG} verify` does", err=True)


def run(arguments: list[str] | None = None) -> int:
    """Run a command line; the exit code. No traceback for what can be foreseen."""
    try:
        code = app(args=arguments, prog_name=PROG, standalone_mode=False)
    except _WRONG_USAGE as error:
        return _explain_usage(error)
    except PeerError as error:
        _complain(f"{error.message} ({error.reason})", error.hint)
        return REFUSED
    except EdgefleetError as error:
        _complain(error.message, error.hint)
        return FAILED
    except KeyboardInterrupt:
        _complain("interrupted", "nothing was written")
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _complain(message: str, hint: str) -> None:
    typer.echo(f"{PROG}: error: {message}", err=True)
    if hint:
        typer.echo(f"{PROG}: hint: {hint}", err=True)


def _explain_usage(error: BaseException) -> int:
    """A command line that is not one: help where nothing was asked for, else what is wrong."""
    message = getattr(error, "format_message", error.__str__)()
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", PROG)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message or getattr(context, "get_help", str)(), err=True)
        return USAGE
    _complain(message.rstrip("."), f"{path} --help")
    return USAGE


def _tell(built: Built, as_json: bool) -> None:
    """What was built: its figures, and where it is."""
    from edgefleet_converter.tables import print_report

    if as_json:
        print_json({"path": str(built.path), "report": codec.encode(built.report)})
        return
    print_report(built.report, results_console())
    typer.echo(str(built.path))


def _report(bundle: Path, manifest: Manifest) -> Json:
    entry = next((file for file in manifest.files if file.role == "report"), None)
    if entry is None:
        return None
    try:
        value: Json = json.loads((bundle / entry.path).read_bytes())
    except (OSError, ValueError):
        return None
    return value


def results_console() -> Console:
    """Where results go; a pipe gets lines as wide as they are."""
    return Console() if sys.stdout.isatty() else Console(width=140)
