"""`edge-convert verify`, `report`, `diff` and `export`: what is done with finished bundles."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from edgefleet_contract import codec
from edgefleet_contract.bundle import Variant, parse_manifest
from edgefleet_contract.canonical import Json
from edgefleet_contract.directory import read_documents
from edgefleet_contract.errors import EdgefleetError, OperatorError, Unverified
from edgefleet_contract.reasons import Reason
from edgefleet_converter import api
from edgefleet_converter.cli_options import AsJson, print_json, results_console

if TYPE_CHECKING:
    from edgefleet_converter.verifying import Verdict

Bundle = Annotated[Path, typer.Argument(help="A bundle directory.")]
ReportPage = Annotated[
    Path | None,
    typer.Option("--report", help="Write a page (HTML) of the figures there.", show_default=False),
]
Trust = Annotated[
    list[Path] | None,
    typer.Option(
        "--trust",
        metavar="PATH",
        help="A public key; may be repeated. The bundle must be signed by one of them.",
        show_default=False,
    ),
]


def verify(
    bundle: Bundle,
    trust: Annotated[
        list[Path],
        typer.Option(
            "--trust",
            "--key",
            metavar="PATH",
            help="A publisher's public key; may be repeated.",
        ),
    ],
    no_run: Annotated[
        bool, typer.Option("--no-run", help="Do not run the models on their golden vectors.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a bundle: signature, files, papers, and that its models give what was signed."""
    from edgefleet_converter.build_progress import progress_bar
    from edgefleet_converter.tables import print_ran

    steps = 1 + (0 if no_run else len(_variants(bundle)))
    with progress_bar(Console(stderr=True), steps) as tell:
        found = api.verify(bundle, trust=trust, run=not no_run, progress=tell)
    if as_json:
        print_json(_verdict_json(found))
    elif found.ran:
        print_ran(found.ran, results_console())
    manifest = found.bundle.manifest
    if found.problems:
        is_papers = bool(found.differing)
        raise Unverified(
            f"{manifest.name}: {'; '.join(found.problems)}",
            reason=Reason.BUNDLE_MISMATCH if is_papers else Reason.GOLDEN_MISMATCH,
        )
    if not as_json:
        typer.echo(
            f"{manifest.name}: verified, {len(manifest.files)} files, "
            f"{manifest.total_size} bytes, signed by {found.bundle.signer[:8]}"
        )


def report(
    bundle: Bundle,
    trust: Trust = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where the page goes; default: stdout.", show_default=False),
    ] = None,
) -> None:
    """Make one page (HTML) of what a bundle says of itself; `--trust` checks its signature."""
    if out is None and sys.stdout.isatty():
        raise OperatorError("the page is HTML, no text for a terminal", hint="--out PAGE.html")
    page = api.report(bundle, out=out, trust=trust or ())
    if out is None:
        sys.stdout.buffer.write(page)
        sys.stdout.buffer.flush()
    if not trust:
        _say_unchecked()


def diff(
    old: Annotated[Path, typer.Argument(help="A bundle directory.")],
    new: Annotated[Path, typer.Argument(help="Another one, such as the next version.")],
    trust: Trust = None,
    as_json: AsJson = False,
) -> None:
    """Show what differs between two bundles, and what sending the difference costs."""
    from edgefleet_converter.diff_tables import print_comparison

    told = api.diff(old, new, trust=trust or ())
    if as_json:
        value = codec.encode(told.found)
        assert isinstance(value, dict)
        costs_json = {path: codec.encode(cost) for path, cost in told.costs.items()}
        print_json({**value, "signatures_checked": bool(trust), "costs": costs_json})
    else:
        console = results_console()
        print_comparison(told.old, told.new, told.found, told.costs, console)
    if not trust:
        _say_unchecked()


def export(
    bundle: Bundle,
    variant: Annotated[str, typer.Argument(help="The name of one of its variants.")],
    out: Annotated[Path, typer.Option(help="The folder to make; it must not exist.")],
    trust: Trust = None,
    as_json: AsJson = False,
) -> None:
    """Write a variant as plain files, with a README, for use without edgefleet."""
    from edgefleet_converter.build_progress import progress_bar

    steps = 3 + sum(len(one.files) for one in _variants(bundle) if one.name == variant)
    with progress_bar(Console(stderr=True), steps) as tell:
        written = api.export(bundle, variant, out=out, trust=trust or (), progress=tell)
    if as_json:
        print_json({"path": str(out), "files": list(written.files)})
    else:
        typer.echo(str(out))
    if not trust:
        _say_unchecked()


def _variants(bundle: Path) -> tuple[Variant, ...]:
    """Those that a bundle names, to reckon the work by; none where it cannot be read."""
    try:
        return parse_manifest(read_documents(bundle)[0]).variants
    except EdgefleetError:
        return ()  # which is said by whoever checks it


def _say_unchecked() -> None:
    typer.echo("edge-convert: the signature was not checked; --trust KEY does", err=True)


def _verdict_json(found: Verdict) -> Json:
    manifest = found.bundle.manifest
    return {
        "model": manifest.model,
        "version": manifest.version,
        "sha256": found.bundle.digest,
        "signer": found.bundle.signer,
        "files": len(manifest.files),
        "bytes": manifest.total_size,
        "papers_differ": list(found.differing),
        "golden": [codec.encode(one) for one in found.ran],
        "verified": not found.problems,
    }
