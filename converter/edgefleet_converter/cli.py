"""`edge-convert`: build, join and inspect, on a terminal; what else it does is in `cli_*.py`.

Results go to stdout, talk to stderr. What exit codes mean is said by `edge-convert --help`.
Model libraries are loaded by the commands that need them.
"""

from __future__ import annotations

import contextlib
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from edgefleet_contract import __version__, codec
from edgefleet_contract.errors import EdgefleetError, PeerError
from edgefleet_contract.keys import PublicKey
from edgefleet_converter import api
from edgefleet_converter.cli_bench import bench
from edgefleet_converter.cli_bundles import ReportPage, diff, export, report, verify
from edgefleet_converter.cli_keys import keys_app
from edgefleet_converter.cli_options import (
    AsJson,
    BoardCa,
    CacheFolder,
    Created,
    Device,
    ModelVersion,
    NoCache,
    OutFolder,
    Overrides,
    Passphrase,
    PinFile,
    PublisherKey,
    RecipeFile,
    TokenFile,
    Toolchain,
    TrustPickle,
    kept,
    measure_on,
    measured_on,
    print_json,
    results_console,
)
from edgefleet_converter.cli_prune import prune, prune_channels
from edgefleet_converter.cli_schema import schema
from edgefleet_converter.cli_search import search
from edgefleet_converter.signing import open_signer

if TYPE_CHECKING:
    from edgefleet_converter.assembly import Built

PROG = "edge-convert"
FAILED, USAGE, REFUSED, INTERRUPTED = 1, 2, 3, 130
EXIT_CODES = (
    "Exit codes: 0 done; 1 failed, nothing was written; 2 used wrongly; 3 refused, because no "
    "trusted key vouches for it; 130 interrupted."
)
FEW_EXAMPLES = 50
_MODEL = "model.onnx --recipe recipe.toml"
_WRONG_USAGE: type[Exception] = typer.BadParameter.__mro__[2]  # ClickException, wherever it is

app = typer.Typer(
    name=PROG,
    help="Turn a trained model into a signed bundle that devices run.",
    no_args_is_help=True,
    add_completion=True,
    epilog=f"{EXIT_CODES} Results go to stdout, everything else to stderr.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _say_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"{PROG} {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_say_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """What every command takes."""


def build(
    source: Annotated[
        Path,
        typer.Argument(
            help="The model: a file of ONNX, TFLite, scikit-learn (.skops), PyTorch (torch.export, "
            "TorchScript), Keras, XGBoost or LightGBM, a SavedModel folder, or module:function.",
        ),
    ],
    recipe: RecipeFile,
    out: OutFolder,
    model: Annotated[str, typer.Option(help="The model's name in the fleet.")],
    version: ModelVersion,
    key: PublisherKey,
    passphrase_file: Passphrase = None,
    pin_file: PinFile = None,
    overrides: Overrides = None,
    created: Created = None,
    trust_pickle: TrustPickle = False,
    toolchain: Toolchain = None,
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    device: Device = None,
    token_file: TokenFile = None,
    ca: BoardCa = None,
    report_page: ReportPage = None,
    as_json: AsJson = False,
) -> None:
    """Convert, measure and sign a model: writes OUT/MODEL-VERSION."""
    from edgefleet_converter.build_progress import progress_bar, steps_of_build

    wanted = measured_on(api.read_recipe(recipe, overrides or ()), device, token_file, ca)
    _check_page(report_page, out, model, version)
    talk = Console(stderr=True)
    _warn_of_open_key(key)
    signer = open_signer(key, passphrase_file=passphrase_file, pin_file=pin_file)
    with signer as private, progress_bar(talk, steps_of_build(wanted)) as tell:
        built = api.build(
            source,
            wanted,
            out=out,
            model=model,
            version=version,
            key=private,
            created=created,
            trust_pickle=trust_pickle,
            toolchain=toolchain,
            cache=kept(cache, no_cache),
            progress=tell,
        )
    _tell(built, as_json, report_page, private.public)


def join(
    graph: Annotated[Path, typer.Argument(help="The graph (TOML); see docs/spec/recipe.md.")],
    out: OutFolder,
    model: Annotated[str, typer.Option(help="The name of the whole in the fleet.")],
    version: ModelVersion,
    key: PublisherKey,
    trust: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="A public key that may have signed the bundles; repeatable; else that of --key.",
            show_default=False,
        ),
    ] = None,
    passphrase_file: Passphrase = None,
    pin_file: PinFile = None,
    created: Created = None,
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    device: Device = None,
    token_file: TokenFile = None,
    ca: BoardCa = None,
    report_page: ReportPage = None,
    as_json: AsJson = False,
) -> None:
    """Join bundles and model files to one signed bundle that answers as one model."""
    from edgefleet_converter.build_progress import progress_bar, steps_of_join
    from edgefleet_converter.join_recipe import load_join

    wanted = load_join(graph)
    measure = measure_on(wanted.measure, device, token_file, ca)
    _check_page(report_page, out, model, version)
    talk = Console(stderr=True)
    _warn_of_open_key(key)
    signer = open_signer(key, passphrase_file=passphrase_file, pin_file=pin_file)
    with signer as private, progress_bar(talk, steps_of_join(len(wanted.formats))) as tell:
        built = api.join(
            graph,
            out=out,
            model=model,
            version=version,
            key=private,
            trust=trust or (),
            measure=measure,
            created=created,
            cache=kept(cache, no_cache),
            progress=tell,
        )
    _tell(built, as_json, report_page, private.public)


def inspect(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory.")], as_json: AsJson = False
) -> None:
    """Show what a bundle says about itself. Does not check its signature: see `verify`."""
    from edgefleet_converter.boards.table import print_report_boards
    from edgefleet_converter.tables import (
        print_card,
        print_manifest,
        print_provenance,
        print_report,
    )

    found = api.inspect(bundle)
    manifest, told, papers = found.manifest, found.report, found.papers
    if as_json:
        print_json(
            {
                "signature_checked": False,
                "sha256": found.digest,
                "manifest": codec.encode(manifest),
                "report": told,
                "card": codec.encode(papers.card) if papers.card else None,
                "provenance": codec.encode(papers.provenance) if papers.provenance else None,
                "papers_differ": list(papers.differing),
            }
        )
    else:
        console = results_console()
        print_manifest(manifest, console)
        if told is not None:
            from edgefleet_converter.report import Report

            report = codec.decode(Report, told, what="report.json", unknown=True)
            print_report(report, console)
            print_report_boards(report, console)
        if papers.card is not None:
            print_card(papers.card, console)
        if papers.provenance is not None:
            print_provenance(papers.provenance, console)
    for path in papers.differing:
        typer.echo(f"{PROG}: the papers speak of another {path} than bundle.json does", err=True)
    typer.echo(f"{PROG}: the signature was not checked; `{PROG} verify` does", err=True)


for _command, _example in (
    (build, f"{_MODEL} --out bundles --model digits --version 1 --key publisher.pem"),
    (join, "graph.toml --out bundles --model both --version 1 --key publisher.pem"),
    (search, _MODEL),
    (prune, f"{_MODEL} --lambdas 0,1e-5,1e-4 --report sweep.html"),
    (prune_channels, "mymodel:trained --recipe recipe.toml --out smaller.onnx --toolchain ~/torch"),
    (bench, "bundles/digits-1 --trust publisher.pem.pub --device ssh://pi@cam-1.local"),
    (verify, "bundles/digits-1 --trust publisher.pem.pub"),
    (inspect, "bundles/digits-1"),
    (report, "bundles/digits-1 --trust publisher.pem.pub --out digits-1.html"),
    (diff, "bundles/digits-1 bundles/digits-2 --trust publisher.pem.pub"),
    (export, "bundles/digits-1 onnx-int8 --out plain --trust publisher.pem.pub"),
    (schema, "> recipe.schema.json"),
):
    _name = _command.__name__.replace("_", "-")
    app.command(_name, epilog=f"Example: {PROG} {_name} {_example}")(_command)
app.add_typer(keys_app, name="keys")


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
        code = INTERRUPTED
    if code == INTERRUPTED:  # Typer turns Ctrl-C into this code, without a word
        _complain("interrupted", "nothing was written")
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


def _warn_of_open_key(key: str) -> None:
    """Say so where others can read a private key: whoever has it signs as its owner."""
    with contextlib.suppress(OSError):
        if Path(key).stat().st_mode & stat.S_IROTH:
            typer.echo(f"{PROG}: {key} can be read by everybody here: chmod 600", err=True)


def _check_page(page: Path | None, out: Path, model: str, version: int) -> None:
    """Refuse a place for the page before the work begins."""
    if page is not None:
        from edgefleet_converter.showing import check_place

        check_place(page, out / f"{model}-{version}")


def _tell(built: Built, as_json: bool, page: Path | None, key: PublicKey) -> None:
    """What was built: its figures, and where it is; and the page of it, where one is asked for."""
    from edgefleet_converter.boards.table import print_report_boards
    from edgefleet_converter.tables import print_report

    if page is not None:
        api.report(built.path, out=page, trust=[key])
    if as_json:
        print_json({"path": str(built.path), "report": codec.encode(built.report)})
        return
    print_report(built.report, results_console())
    print_report_boards(built.report, results_console())
    typer.echo(str(built.path))
    few = built.report.held_out.examples
    if few is not None and few < FEW_EXAMPLES:
        typer.echo(
            f"{PROG}: these figures are of {few} held-out example{'s'[: few != 1]}, which tell "
            f"little: bring {FEW_EXAMPLES} or more",
            err=True,
        )
