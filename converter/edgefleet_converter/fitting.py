"""Whether the boards of a recipe can run a variant: its operators against their runtimes. Pure.

What comes out is stamped into the variant: the runtimes that run the file, with their lowest
versions, and the processors of the classes that have one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgefleet_contract.bundle import ANY_HARDWARE, Format, parse_version
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.hardware import FORMATS, HardwareClass
from edgefleet_converter.tflite_runtime_operators import NEWEST

TFLITE_RUNTIME: Final = "tflite-runtime"


@dataclass(frozen=True, slots=True)
class Operator:
    """A node of a file: its name, what it does, since which version of that."""

    node: str
    op: str
    version: int


@dataclass(frozen=True, slots=True)
class Needs:
    """What a file asks of a runtime. Opset and IR version are 0 for TFLite."""

    operators: tuple[Operator, ...]
    opset: int = 0
    ir: int = 0


@dataclass(frozen=True, slots=True)
class Fit:
    """What is stamped into a variant."""

    runtimes: dict[str, str]
    hw: tuple[str, ...]


def fit(
    kind: Format,
    needs: Needs,
    lowest: Mapping[str, str],
    classes: Mapping[str, HardwareClass],
    *,
    what: str,
    ram_mib: float = 0.0,
) -> Fit:
    """The runtimes that run a file, and the processors it is for; `lowest` are the oldest tried.

    A class that has no runtime for such files is passed over: it takes another variant.

    Raises:
        OperatorError: a class has one and cannot run the file; naming the node and the operator.
    """
    runtimes = {name: version for name, version in lowest.items() if not _lacking(name, needs)}
    taken = {name: one for name, one in classes.items() if one.runs(kind)}
    for name, board in taken.items():
        reason = _unfit(kind, needs, runtimes, board)
        if not reason and board.memory_mib and ram_mib > board.memory_mib:
            reason = f"takes {ram_mib:.0f} MiB here, the board has {board.memory_mib}"
        if reason:
            raise OperatorError(
                f"{what}: {name} cannot run it: {reason}",
                hint="another target, or hardware.classes without it",
            )
    if not runtimes:
        raise OperatorError(f"{what}: no runtime runs it")
    return Fit(runtimes, tuple(dict.fromkeys(one.hw for one in taken.values())) or (ANY_HARDWARE,))


def _lacking(runtime: str, needs: Needs) -> str:
    """The first operator that a runtime does not have in that version; empty if it has all."""
    if runtime != TFLITE_RUNTIME:
        return ""
    for one in needs.operators:
        newest = NEWEST.get(one.op, 0)
        if one.version > newest:
            has = f"has version {newest}" if newest else "has none"
            return f"node {one.node!r} is {one.op} version {one.version}, {runtime} {has}"
    return ""


def _unfit(kind: Format, needs: Needs, runtimes: Mapping[str, str], board: HardwareClass) -> str:
    """Why a class with a runtime for such files cannot run this one; empty if it can."""
    for one in needs.operators:
        if one.op in board.without or (board.operators and one.op not in board.operators):
            return f"node {one.node!r} is {one.op}, which it lacks"
    if board.max_opset and needs.opset > board.max_opset:
        newest = max(needs.operators, key=lambda one: one.version)
        return (
            f"opset {needs.opset}, it has {board.max_opset} at most; the newest operator is "
            f"{newest.op} of opset {newest.version}, node {newest.node!r}"
        )
    if board.max_ir and needs.ir > board.max_ir:
        return f"IR version {needs.ir}, it has {board.max_ir} at most"
    reasons = []
    for name, version in board.runtimes.items():
        if FORMATS[name] is not kind:
            continue
        if name not in runtimes:
            reasons.append(_lacking(name, needs) or f"{name} does not run it")
        elif parse_version(version) < parse_version(runtimes[name]):
            reasons.append(f"needs {name} {runtimes[name]}, it has {version}")
        else:
            return ""
    return "; ".join(reasons)
