"""What it means to try something hostile, and to judge how it ended.

A class is a generator of attempts. An attempt calls the product; whatever it raises from the error
tree refused it, for a reason that must be among the expected ones. What it returns was accepted:
harmless only if it equals `same`, the very thing that the hostile input was made from. `trace`
shows what must be as it was before (files on a disk, rows in a store).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from edgefleet_contract.errors import DeviceError, EdgefleetError, PeerError, TransientError

if TYPE_CHECKING:
    from tests.hostile.ground import Ground

TRANSIENT = "try again later"
OPERATOR = "an operator mends it"
NOTHING = object()


class Verdict(StrEnum):
    """How an attempt ended. The first two are good ends."""

    REFUSED = "refused"
    SAME = "same_meaning"
    ACCEPTED = "accepted"
    LEFT = "left_on_disk"
    WRONG_REASON = "wrong_reason"
    DIED = "died"


GOOD = (Verdict.REFUSED, Verdict.SAME)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One hostile input at one entry point. `expected` narrows the reasons of its class."""

    name: str
    go: Callable[[], object]
    same: object = field(default=NOTHING)
    trace: Callable[[], object] | None = None
    expected: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class HostileClass:
    """A kind of hostile input. `sample`: how many of it the quick run tries."""

    name: str
    reasons: frozenset[str]
    generate: Callable[[Ground], Iterator[Attempt]]
    sample: int


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt and its end; `said` is for people."""

    cls: str
    name: str
    verdict: Verdict
    said: str = ""

    @property
    def is_good(self) -> bool:
        return self.verdict in GOOD


CLASSES: dict[str, HostileClass] = {}
_Generate: TypeAlias = Callable[["Ground"], Iterator[Attempt]]


def hostile(name: str, *reasons: str, sample: int = 60) -> Callable[[_Generate], _Generate]:
    """Register a generator as a class of hostile inputs."""

    def register(generate: _Generate) -> _Generate:
        assert generate.__doc__, name
        CLASSES[name] = HostileClass(name, frozenset(reasons), generate, sample)
        return generate

    return register


def judge(cls: HostileClass, attempt: Attempt) -> Ended:
    """Try it, and say how it ended."""
    before = attempt.trace() if attempt.trace else None
    expected = attempt.expected or cls.reasons
    said = ""
    try:
        value = attempt.go()
    except EdgefleetError as error:
        verdict = Verdict.REFUSED if word(error) in expected else Verdict.WRONG_REASON
        said = f"{word(error)}: {error.message[:200]}"
    except Exception as error:  # noqa: BLE001 - the point: nothing else may come out
        verdict, said = Verdict.DIED, f"{type(error).__name__}: {str(error)[:200]}"
    else:
        verdict = Verdict.SAME if value == attempt.same else Verdict.ACCEPTED
        said = repr(value)[:200]
    if attempt.trace and verdict in GOOD and attempt.trace() != before:
        verdict, said = Verdict.LEFT, f"{said}; what was there before is not as it was"
    return Ended(cls.name, attempt.name, verdict, said)


def word(error: EdgefleetError) -> str:
    """The reason of an error, or who can act on it."""
    if isinstance(error, PeerError | DeviceError):
        return str(error.reason)
    return TRANSIENT if isinstance(error, TransientError) else OPERATOR


def spread(attempts: list[Attempt], most: int) -> list[Attempt]:
    """At most so many of them, evenly spread, the first and the last among them."""
    if len(attempts) <= most:
        return attempts
    last = len(attempts) - 1
    return [attempts[i * last // (most - 1)] for i in range(most)]


def files_below(root: Path) -> dict[str, tuple[int, int, str]]:
    """Every file below a folder: mode, links, digest."""
    found: dict[str, tuple[int, int, str]] = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        digest = hashlib.sha256(content).hexdigest()
        found[os.fspath(path.relative_to(root))] = (info.st_mode, info.st_nlink, digest)
    return found


def said_no(verdict: Any) -> object:
    """The value of a policy's verdict; a refusal raises, as refusals do elsewhere."""
    reason = getattr(verdict, "reason", None)
    if reason is not None:
        raise PeerError(verdict.detail, reason=reason)
    return verdict
