"""Two bundles side by side: what of the manifest, the figures and the files is another. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from edgefleet_contract.bundle import BundleFile, Manifest, Variant
from edgefleet_converter.page.told import Dot, Told
from edgefleet_converter.program_words import program_lines
from edgefleet_converter.sbom import spec_text


class Fate(StrEnum):
    """What became of a file or a variant."""

    SAME = "same"
    CHANGED = "changed"
    ADDED = "added"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Change:
    """A thing that was said one way and is said another; empty is not said."""

    what: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class FigureChange:
    """A figure of a variant before and after, None where it was not measured."""

    variant: str
    figure: str
    before: float | None
    after: float | None


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file before and after, None where there is none."""

    path: str
    fate: Fate
    before: BundleFile | None
    after: BundleFile | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that differs; `files` has those that are the same as well."""

    said: tuple[Change, ...]
    figures: tuple[FigureChange, ...]
    files: tuple[FileChange, ...]

    @property
    def is_same(self) -> bool:
        """Whether nothing that a device uses or a person reads is another."""
        is_kept = all(file.fate is Fate.SAME for file in self.files)
        return is_kept and not self.said and not self.figures


def compare(a: Manifest, b: Manifest, told_a: Told, told_b: Told) -> Comparison:
    """What became of bundle `a` in bundle `b`; their reports as far as they were understood."""
    return Comparison(
        said=(*_said(a, b), *_variants(a, b)),
        figures=tuple(_figures(told_a, told_b)),
        files=tuple(_files(a, b)),
    )


def _said(a: Manifest, b: Manifest) -> Iterator[Change]:
    for what in ("model", "version", "created", "agent_min", "labels"):
        yield from _change(what, getattr(a, what), getattr(b, what))
    orders = (", ".join(one.name for one in x.variants) for x in (a, b))
    yield from _change("variants", *orders)


def _variants(a: Manifest, b: Manifest) -> Iterator[Change]:
    """Of the variants that are in both."""
    later = {one.name: one for one in b.variants}
    for one in a.variants:
        if one.name in later:
            before, after = _told(one), _told(later[one.name])
            for what in before:
                yield from _change(f"{one.name} {what}", before[what], after[what])


def _told(one: Variant) -> dict[str, str]:
    limits = [
        f"{hw}: {x.ram_mib} MiB, load {x.load_ms} ms, p95 {x.p95_us} µs"
        for hw, x in sorted(one.limits.items())
    ]
    return {
        "precision": one.precision,
        "takes": "\n".join(spec_text(spec) for spec in one.inputs),
        "gives": "\n".join(spec_text(spec) for spec in one.outputs),
        "tolerance": f"{one.max_abs_err_e6 / 1e6:g}",
        "runtimes": "\n".join(f"{name} {low}" for name, low in sorted(one.runtimes.items())),
        "hardware": ", ".join(one.hw),
        "limits": "\n".join(limits),
        "program": "\n".join(program_lines(one.program)) if one.program else "",
    }


def _change(what: str, before: object, after: object) -> Iterator[Change]:
    if before != after:
        yield Change(what, *("" if value is None else str(value) for value in (before, after)))


def _figures(a: Told, b: Told) -> Iterator[FigureChange]:
    later = {dot.name: dot for dot in b.variants}
    for dot in a.variants:
        if dot.name in later:
            before, after = _numbers(dot), _numbers(later[dot.name])
            for figure in before:
                if before[figure] != after[figure]:
                    yield FigureChange(dot.name, figure, before[figure], after[figure])


def _numbers(dot: Dot) -> dict[str, float | None]:
    return {
        "accuracy": dot.accuracy.value if dot.accuracy else None,
        "agreement": dot.agreement.value if dot.agreement else None,
        "sqnr_db": dot.sqnr_db,
        "size": dot.size,
        "size_gzip": dot.size_packed,
        "p50_us": dot.latency_us,
        "p95_us": dot.p95_us,
        "load_ms": dot.load_ms,
        "ram_mib": dot.ram_mib,
    }


def _files(a: Manifest, b: Manifest) -> Iterator[FileChange]:
    earlier = {file.path: file for file in a.files}
    later = {file.path: file for file in b.files}
    for path in sorted({*earlier, *later}):
        before, after = earlier.get(path), later.get(path)
        yield FileChange(path, _fate(before, after), before, after)


def _fate(before: BundleFile | None, after: BundleFile | None) -> Fate:
    if before is None:
        return Fate.ADDED
    if after is None:
        return Fate.REMOVED
    return Fate.SAME if before.sha256 == after.sha256 else Fate.CHANGED
