"""Chooses the variant of a bundle that this board runs, and the runtime for it.

Pure. The publisher's order stands, filtered by what the board is, has and can hold; the operator
may put some runtimes before others. The choice says why, in words that the fleet shows.
"""

from __future__ import annotations

from edgefleet_agent.ports import Choice, Failed
from edgefleet_agent.runtime.engines import FORMATS
from edgefleet_contract.bundle import ANY_HARDWARE, Manifest, Variant, parse_version
from edgefleet_contract.reasons import Reason


def choose(
    manifest: Manifest,
    engines: dict[str, str],
    hw: str,
    preference: tuple[str, ...] = (),
    memory_mib: int = 0,
) -> Choice | Failed:
    """The first variant that fits this board, and the runtime to run it on.

    With a preference, a variant for an engine named earlier goes before all others; among equals
    the publisher's order decides. `memory_mib` is what the board has; 0: it is not known.

    Returns:
        The choice; or WRONG_HARDWARE if every variant is for other boards, or NO_VARIANT if none
        fits here; the detail says what was needed and what is there.
    """
    at_home = [
        variant for variant in manifest.variants if ANY_HARDWARE in variant.hw or hw in variant.hw
    ]
    if not at_home:
        wanted = sorted({name for variant in manifest.variants for name in variant.hw})
        return Failed(
            Reason.WRONG_HARDWARE, f"{manifest.name} is for {', '.join(wanted)}; this board is {hw}"
        )
    unfit = {variant.name: _unfit(variant, engines, hw, memory_mib) for variant in at_home}
    fitting = [
        (variant, engine)
        for variant in at_home
        if not unfit[variant.name]
        for engine in FORMATS
        if engine in engines and _runs(variant, engine, engines[engine])
    ]
    if not fitting:
        needs = "; ".join(f"{name} {why}" for name, why in unfit.items())
        have = ", ".join(f"{name} {version}" for name, version in engines.items()) or "no runtime"
        return Failed(Reason.NO_VARIANT, f"{manifest.name}: {needs}; this board has {have}")
    variant, engine = min(fitting, key=lambda pair: _rank(pair[1], preference))  # min is stable
    return Choice(variant, engine, _why(variant, engine, at_home, unfit, preference))


def engine_for(
    variant: Variant, engines: dict[str, str], hw: str, preference: tuple[str, ...] = ()
) -> str | Failed:
    """The runtime that would serve one variant here; why none would, as `choose` says it."""
    if ANY_HARDWARE not in variant.hw and hw not in variant.hw:
        wanted = ", ".join(sorted(variant.hw))
        return Failed(Reason.WRONG_HARDWARE, f"it is for {wanted}; this board is {hw}")
    fitting = [
        engine
        for engine in FORMATS
        if engine in engines and _runs(variant, engine, engines[engine])
    ]
    if not fitting:
        have = ", ".join(f"{name} {version}" for name, version in engines.items()) or "no runtime"
        return Failed(Reason.NO_VARIANT, f"it needs {_needs(variant)}; this board has {have}")
    return min(fitting, key=lambda engine: _rank(engine, preference))


def _why(
    chosen: Variant,
    engine: str,
    at_home: list[Variant],
    unfit: dict[str, str],
    preference: tuple[str, ...],
) -> str:
    """Why this one: what was passed over before it, and for what."""
    before = [variant.name for variant in at_home[: at_home.index(chosen)]]
    passed = [f"{name} {unfit[name]}" for name in before if unfit[name]]
    if any(not unfit[name] for name in before) and engine in preference:
        passed.append(f"{engine} is preferred here")
    return "; ".join(passed) or "the publisher's first choice fits"


def _unfit(variant: Variant, engines: dict[str, str], hw: str, memory_mib: int) -> str:
    """Why a variant for this kind of board does not fit it; empty where it does."""
    if not any(_runs(variant, engine, version) for engine, version in engines.items()):
        return f"needs {_needs(variant)}"
    limits = variant.limits.get(hw)
    if limits is not None and memory_mib and limits.ram_mib > memory_mib:
        return f"takes up to {limits.ram_mib} MiB, the board has {memory_mib}"
    return ""


def _runs(variant: Variant, engine: str, version: str) -> bool:
    lowest = variant.runtimes.get(engine)
    return (
        lowest is not None
        and FORMATS.get(engine) is variant.format
        and parse_version(version) >= parse_version(lowest)
    )


def _needs(variant: Variant) -> str:
    return " or ".join(f"{name} {lowest}" for name, lowest in sorted(variant.runtimes.items()))


def _rank(engine: str, preference: tuple[str, ...]) -> int:
    return preference.index(engine) if engine in preference else len(preference)
