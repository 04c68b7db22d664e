"""What the commands print for people: tables on a terminal, the same text in a pipe."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgefleet_contract import codec
from edgefleet_contract.bundle import Manifest, TensorSpec
from edgefleet_contract.cards import Metric, ModelCard, Provenance
from edgefleet_contract.graph import Program
from edgefleet_converter.metrics import EXACT_DB, Share
from edgefleet_converter.program_words import program_lines
from edgefleet_converter.proof_words import proof_in_words
from edgefleet_converter.report import PassReport, Report
from edgefleet_converter.sbom import spec_text
from edgefleet_converter.verifying import Ran


def print_report(report: Report, console: Console) -> None:
    """One line a variant: size, accuracy, agreement, speed."""
    table = Table(title=f"{report.model} {report.version}", title_justify="left")
    table.add_column("variant", no_wrap=True)
    for name in ("size kB", "float acc.", "accuracy", "agreement", "SQNR dB"):
        table.add_column(name, justify="right")
    for name in ("p50 µs", "p95 µs", "load ms"):
        table.add_column(name, justify="right")
    for told in report.variants:
        speed = told.measured
        table.add_row(
            told.name,
            f"{told.size / 1000:.1f}",
            _share(told.accuracy_float),
            _share(told.accuracy),
            _share(told.agreement),
            "exact" if told.sqnr_db >= EXACT_DB else f"{told.sqnr_db:.1f}",
            f"{speed.p50_us:.0f}" if speed else "-",
            f"{speed.p95_us:.0f}" if speed else "-",
            f"{speed.load_ms:.1f}" if speed else "-",
        )
    console.print(table)
    for told in report.variants:
        for one in told.passes:
            console.print(f"{told.name}, {one.name}: {_brought(one)}", highlight=False)
    if (pruned := report.prune) is not None:
        console.print(
            f"pruned with lambda {pruned.lambda_:.3g}: {pruned.norm0} of {pruned.weights} weights "
            f"are not zero; accuracy {_share(pruned.accuracy_before)} before, "
            f"{_share(pruned.accuracy_after)} after, agreement {_share(pruned.agreement)}",
            highlight=False,
        )
        if pruned.proof is not None:
            said = proof_in_words(codec.encode(pruned.proof))
            console.print(said, highlight=False, soft_wrap=True)


def _brought(one: PassReport) -> str:
    """What a pass changed."""
    said = [f"{one.size_before / 1000:.1f} to {one.size / 1000:.1f} kB"]
    if one.load_ms_before is not None and one.load_ms is not None:
        said.append(f"load {one.load_ms_before:.1f} to {one.load_ms:.1f} ms")
    if one.ram_mib_before is not None and one.ram_mib is not None:
        said.append(f"private memory {one.ram_mib_before:.1f} to {one.ram_mib:.1f} MiB")
    return ", ".join(said)


def print_manifest(manifest: Manifest, console: Console) -> None:
    """What a bundle says about itself."""
    table = Table(title=f"{manifest.model} {manifest.version}", title_justify="left")
    for name in ("variant", "takes", "gives", "tolerance", "runtimes", "limits"):
        table.add_column(name)
    for variant in manifest.variants:
        table.add_row(
            variant.name,
            "\n".join(_spec(spec) for spec in variant.inputs),
            "\n".join(_spec(spec) for spec in variant.outputs),
            f"{variant.max_abs_err_e6 / 1e6:g}",
            "\n".join(f"{name} {lowest}" for name, lowest in variant.runtimes.items()),
            "\n".join(
                f"{hw}: {x.ram_mib} MiB, {x.load_ms} ms, {x.p95_us} µs"
                for hw, x in variant.limits.items()
            )
            or "none",
        )
    console.print(table)
    for variant in manifest.variants:
        if variant.program is not None:
            print_program(variant.name, variant.program, console)
    files = Table()
    for name in ("file", "role", "bytes", "sha256"):
        files.add_column(name, justify="right" if name == "bytes" else "left", no_wrap=True)
    for file in manifest.files:
        files.add_row(file.path, file.role.value, str(file.size), file.sha256[:16])
    console.print(files)


def print_program(variant: str, program: Program, console: Console) -> None:
    """What a variant does beside running one model, one line a node."""
    table = Table(title=f"program of {variant}", title_justify="left", show_header=False)
    table.add_column("line")
    for line in program_lines(program):
        table.add_row(escape(line))
    console.print(table)


def print_ran(ran: Sequence[Ran], console: Console) -> None:
    """How each variant did on its golden vectors here."""
    table = Table(title="golden vectors", title_justify="left")
    for name in ("variant", "runtime", "vectors", "differ by", "allowed", ""):
        table.add_column(name, justify="left" if name in ("variant", "runtime", "") else "right")
    for one in ran:
        table.add_row(
            one.name,
            one.runtime or "-",
            str(one.vectors),
            "-" if one.worst is None else f"{one.worst:.3g}",
            f"{one.allowed:g}",
            "no" if one.problem else "yes",
        )
    console.print(table)


def print_card(card: ModelCard, console: Console) -> None:
    """What the publisher says of the model; what was not said is left out."""
    table = Table(title="model card", title_justify="left", show_header=False)
    table.add_column("field", no_wrap=True)
    table.add_column("value")
    for name, value in (
        ("description", card.description),
        ("task", card.task),
        ("licence", card.licence),
        ("authors", ", ".join(card.authors)),
        ("intended use", "\n".join(card.intended_use)),
        ("limitations", "\n".join(card.limitations)),
        (
            "data",
            "\n".join(_dataset(one.name, one.description, one.examples) for one in card.datasets),
        ),
        ("figures", "\n".join(_metric(metric) for metric in card.metrics)),
    ):
        if value:
            table.add_row(name, escape(value))
    console.print(table)


def print_provenance(origin: Provenance, console: Console) -> None:
    """What a bundle was made from, and by what."""
    table = Table(title="origin", title_justify="left", show_header=False)
    table.add_column("field", no_wrap=True)
    table.add_column("value")
    table.add_row("built", escape(f"{origin.invocation}, {origin.started}"))
    table.add_row("by", escape(origin.builder))
    for material in origin.materials:
        table.add_row(escape(material.name), material.sha256)
    tools = [f"{name} {version}" for name, version in sorted(origin.versions.items())]
    table.add_row("tools", escape("\n".join(tools)))
    console.print(table)


def _dataset(name: str, description: str, examples: int | None) -> str:
    count = "" if examples is None else f", {examples} examples"
    return f"{name}{count}: {description}" if description else f"{name}{count}"


def _metric(metric: Metric) -> str:
    between = f" ({metric.low} to {metric.high})" if metric.low and metric.high else ""
    return f"{metric.variant}: {metric.kind} {metric.value}{between}"


def _share(share: Share | None) -> str:
    return "-" if share is None else f"{100 * share.value:.2f} %"


def _spec(spec: TensorSpec) -> str:
    return escape(spec_text(spec))
