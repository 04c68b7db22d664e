"""The parts of the page that show what was signed: tensors, programs, card, origin, files."""

from __future__ import annotations

from edgefleet_contract.bundle import Manifest
from edgefleet_contract.cards import Dataset, ModelCard
from edgefleet_converter.page.markup import Child, Html, el
from edgefleet_converter.page.parts import facts, table, titled
from edgefleet_converter.page.told import Told
from edgefleet_converter.papers import Papers
from edgefleet_converter.program_words import program_lines
from edgefleet_converter.sbom import spec_text


def interface(manifest: Manifest) -> Html:
    """What clients send and get, and the runtimes and limits of each variant."""
    rows = [
        [
            one.name,
            _lines([spec_text(spec) for spec in one.public_inputs]),
            _lines([spec_text(spec) for spec in one.public_outputs]),
            _lines([f"{name} {lowest}" for name, lowest in sorted(one.runtimes.items())]),
            _lines(
                [
                    f"{hw}: {x.ram_mib} MiB, load {x.load_ms} ms, p95 {x.p95_us} µs"
                    for hw, x in sorted(one.limits.items())
                ]
                or ["none"]
            ),
        ]
        for one in manifest.variants
    ]
    heads = ("variant", "takes", "gives", "runtimes, at least", "signed limits")
    return titled("Inputs and outputs", table(heads, rows))


def golden(manifest: Manifest, told: Told) -> Html:
    """What a device must reproduce before it serves."""
    kernels = {dot.name: dot.kernels for dot in told.variants}
    inputs = {dot.name: dot.golden_inputs for dot in told.variants}
    rows = [
        [
            one.name,
            one.golden,
            el("td", f"{one.max_abs_err_e6 / 1e6:g}", class_="n"),
            inputs.get(one.name, ""),
            ", ".join(kernels.get(one.name, ())),
        ]
        for one in manifest.variants
    ]
    note = "A device gives these answers, to within the tolerance, before it serves the model."
    return titled(
        "Golden vectors",
        table(("variant", "file", "#tolerance", "inputs", "kernels that were compared"), rows),
        el("p", note, class_="muted"),
    )


def programs(manifest: Manifest) -> Child:
    """What variants do beside running one model; the same lines are shown once."""
    said: dict[str, list[str]] = {}
    for one in manifest.variants:
        if one.program is not None:
            said.setdefault("\n".join(program_lines(one.program)), []).append(one.name)
    if not said:
        return None
    return titled(
        "Program",
        [
            el("div", el("small", ", ".join(names)), el("pre", lines), class_="card")
            for lines, names in said.items()
        ],
    )


def card(told: ModelCard | None) -> Html:
    """What the publisher says of the model."""
    if told is None:
        return titled("Model card", el("p", "This bundle has none.", class_="muted"))
    return titled(
        "Model card",
        facts(
            (
                ("Task", told.task),
                ("Licence", told.licence),
                ("Authors", ", ".join(told.authors)),
                ("Intended use", _lines(list(told.intended_use))),
                ("Limitations", _lines(list(told.limitations))),
                ("Data", [_data(one) for one in told.datasets]),
            )
        ),
    )


def provenance(papers: Papers) -> Html:
    """What the bundle was made from, by what, with which settings."""
    origin = papers.provenance
    wrong = [
        el("p", f"The papers speak of another {path} than bundle.json does.", class_="bad")
        for path in papers.differing
    ]
    if origin is None:
        return titled("Origin", wrong, el("p", "This bundle does not say.", class_="muted"))
    made = [el("div", one.name, " ", el("code", one.sha256)) for one in origin.materials]
    tools = ", ".join(f"{name} {number}" for name, number in sorted(origin.versions.items()))
    settings = el(
        "details",
        el("summary", f"{len(origin.parameters)} settings"),
        [
            el("div", el("code", name), " ", value)
            for name, value in sorted(origin.parameters.items())
        ],
    )
    return titled(
        "Origin",
        wrong,
        facts(
            (
                ("Made from", made),
                ("Builder", origin.builder),
                ("Tools", tools),
                ("Built", f"{origin.invocation}, {origin.started}"),
                ("Settings", settings if origin.parameters else None),
            )
        ),
    )


def files(manifest: Manifest) -> Html:
    """Everything that was signed."""
    rows = [
        [
            file.path,
            file.role.value,
            el("td", f"{file.size:,}", class_="n"),
            el("code", file.sha256, class_="muted"),
        ]
        for file in manifest.files
    ]
    return titled("Files", table(("file", "for", "#bytes", "SHA-256"), rows))


def _lines(texts: list[str]) -> list[Child]:
    return [el("div", one) for one in texts]


def _data(one: Dataset) -> Html:
    count = "" if one.examples is None else f", {one.examples} examples"
    said = f": {one.description}" if one.description else ""
    digest = [" ", el("code", one.sha256[:16], class_="muted")] if one.sha256 else None
    return el("div", f"{one.name}{count}{said}", digest)
