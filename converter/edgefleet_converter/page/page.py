"""The whole page: what a bundle says of itself, from its own signed files.

One file that asks nobody for anything: styles and charts are in it, scripts are forbidden by its
own policy. The same bundle gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Final

from edgefleet_contract import codec
from edgefleet_contract.bundle import Digest, Manifest
from edgefleet_contract.canonical import Json
from edgefleet_converter.page import closer, figures, sections
from edgefleet_converter.page.boards import boards
from edgefleet_converter.page.markup import Child, Html, el
from edgefleet_converter.page.passes import passes
from edgefleet_converter.page.told import read_told
from edgefleet_converter.papers import Papers
from edgefleet_converter.proof_words import proof_in_words
from edgefleet_converter.sbom import timestamp

if TYPE_CHECKING:
    from edgefleet_converter.sweep import Sweep

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True)
class Shown:
    """What a page is made of. `signer` is the id of the key that was checked, None for no check."""

    manifest: Manifest
    digest: Digest
    report: Json
    papers: Papers
    labels: tuple[str, ...] = ()
    signer: str | None = None


def render_page(shown: Shown) -> bytes:
    """The page in UTF-8."""
    manifest, told = shown.manifest, read_told(shown.report)
    main = el(
        "main",
        _head(shown),
        figures.headline(told),
        figures.variants(told),
        figures.accuracy_charts(told),
        boards(shown.report),
        passes(shown.report),
        figures.candidates(told),
        figures.pruning(told),
        closer.layers(told),
        closer.histograms(told),
        closer.flips(told, shown.labels),
        sections.interface(manifest),
        sections.golden(manifest, told),
        sections.programs(manifest),
        sections.card(shown.papers.card),
        sections.provenance(shown.papers),
        sections.files(manifest),
    )
    foot = f"Made by edge-convert from the files of {manifest.name}."
    return _whole(f"{manifest.name}: report", main, foot)


def render_sweep_page(name: str, sweep: Sweep) -> bytes:
    """The page of a sweep over lambda alone, in UTF-8."""
    points: Json = {"lambda_sweep": [codec.encode(point) for point in sweep.points]}
    proof = "" if sweep.proof is None else proof_in_words(codec.encode(sweep.proof))
    said = f"{sweep.size / 1000:,.1f} kB as float32; pruned with each lambda, then made int8."
    main = el(
        "main",
        el("h1", name),
        el("p", said, class_="lead"),
        el("p", ["SHA-256 ", el("code", sweep.source.sha256)], class_="muted"),
        figures.pruning(read_told(points)),
        None if sweep.proof is None else el("p", f"\u03bb {sweep.chosen:.3g}: {proof}."),
        el("p", f"{sweep.none_inside}.") if sweep.none_inside else None,
    )
    return _whole(f"{name}: pruning", main, f"Made by edge-convert of {name}.")


def _whole(title: str, main: Html, foot: str) -> bytes:
    style = resources.files("edgefleet_converter.page").joinpath("page.css").read_text("utf-8")
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="referrer", content="no-referrer"),
        el("title", title),
        el("style", Html(style)),
    )
    page = el("html", head, el("body", main, el("footer", foot)), lang="en")
    return f"<!doctype html>\n{page}\n".encode()


def _head(shown: Shown) -> list[Child]:
    manifest, card = shown.manifest, shown.papers.card
    if shown.signer is None:
        tag = el("span", "signature not checked", class_="tag wait")
        said: Child = "Nobody's signature was checked when this page was made."
    else:
        tag = el("span", "signed", class_="tag good")
        said = ["Signature and files checked; signed by ", el("code", shown.signer), "."]
    return [
        el("h1", f"{manifest.model} {manifest.version} ", tag),
        el("p", card.description, class_="lead") if card and card.description else None,
        el(
            "p",
            [f"Built {timestamp(manifest.created)} · {manifest.total_size / 1000:,.1f} kB · "],
            ["bundle ", el("code", shown.digest)],
            class_="muted",
        ),
        el("p", said, class_="muted"),
    ]
