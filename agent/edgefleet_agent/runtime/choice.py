"""Chooses the variant of a bundle that this board runs, and the runtime for it.

Pure. The publisher's order stands, filtered by what the board is and has; the operator may put
some runtimes before others.
"""

from __future__ import annotations

from edgefleet_agent.ports import Failed
from edgefleet_agent.runtime.engines import FORMATS
from edgefleet_contract.bundle import ANY_HARDWARE, Manifest, Variant, parse_version
from edgefleet_contract.reasons import Reason


def choose(
    manifest: Manifest, engines: dict[str, str], hw: str, preference: tuple[str, ...] = ()
) -> tuple[Variant, str] | Failed:
    """The first variant that fits this board, and the runtime to run it on.

    With a preference, a variant for an engine named earlier goes before all others; among equals
    the publisher's order decides.

    Returns:
        The pair, or WRONG_HARDWARE if every variant is for other boards, or NO_VARIANT if no
        runtime here fits; the detail says what was needed and what is there.
    """
    at_home = [
        variant for variant in manifest.variants if ANY_HARDWARE in variant.hw or hw in variant.hw
    ]
    if not at_home:
        wanted = sorted({name for variant in manifest.variants for name in variant.hw})
        return Failed(
            Reason.WRONG_HARDWARE, f"{manifest.name} is for {', '.join(wanted)}; this board is {hw}"
        )
    fitting = [
        (variant, engine)
        for variant in at_home
        for engine in FORMATS
        if engine in engines and _runs(variant, engine, engines[engine])
    ]
    if not fitting:
        needs = "; ".join(f"{variant.name} needs {_needs(variant)}" for variant in at_home)
        have = ", ".join(f"{name} {version}" for name, version in engines.items()) or "no runtime"
        return Failed(Reason.NO_VARIANT, f"{manifest.name}: {needs}; this board has {have}")
    return min(fitting, key=lambda pair: _rank(pair[1], preference))  # min is stable


def _runs(variant: Variant, engine: str, version: str) -> bool:
    lowest = variant.runtimes.get(engine)
    return (
        lowest is not None
        and FORMATS[engine] is variant.format
        and parse_version(version) >= parse_version(lowest)
    )


def _needs(variant: Variant) -> str:
    return " or ".join(f"{name} {lowest}" for name, lowest in sorted(variant.runtimes.items()))


def _rank(engine: str, preference: tuple[str, ...]) -> int:
    return preference.index(engine) if engine in preference else len(preference)
