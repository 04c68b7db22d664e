"""What happens to a device, in one history: steps of its installs and all else. No I/O, no clock.

Steps of installs are told by the device; everything else is noted when the service learns of it,
in the transaction that knows it. Of each kind so many are kept, so that no kind drives out another;
and a device that comes and goes has one entry an hour, which counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Final

from edgefleet_contract.capabilities import Capabilities
from edgefleet_contract.reported import Event

LINK_S: Final = 3600
"""For so long comings and goings are one entry."""
MAX_DETAIL: Final = 500


class HistoryKind(StrEnum):
    """What an entry of a device's history is about."""

    INSTALL = "install"
    ENROLMENT = "enrolment"
    LINK = "link"
    CERTIFICATE = "certificate"
    TAGS = "tags"
    INVENTORY = "inventory"
    COMMAND = "command"
    QUARANTINE = "quarantine"
    ROLLOUT = "rollout"
    DRIFT = "drift"


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that is no step of an install; `what` is a word. It happened `count` times, the
    last time at `until`, where that is more than once. `who` is a person who did it, or nobody."""

    what: str
    detail: str = ""
    who: str = ""
    count: int = 1
    until: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a device's history: a step of an install, or something else.

    `number` rises; `ts` is the device's own time of a step, `received_at` the service's.
    """

    number: int
    kind: HistoryKind
    ts: int
    received_at: int
    told: Event | Happening


OF_AUDIT: Final[Mapping[str, tuple[HistoryKind, str]]] = {
    "device.enrol": (HistoryKind.ENROLMENT, "enrolled"),
    "device.revoke": (HistoryKind.ENROLMENT, "revoked"),
    "device.forget": (HistoryKind.ENROLMENT, "forgotten"),
    "device.decommission": (HistoryKind.ENROLMENT, "decommissioned"),
    "device.renew": (HistoryKind.CERTIFICATE, "renewed"),
    "device.tag": (HistoryKind.TAGS, "tagged"),
}
"""Rows of the audit trail that stand in the history of the device that they are about."""
_COMMAND: Final = "command."
_SERVICE: Final = "fleet"
_DEVICE: Final = "device:"


def of_audit(what: str, detail: str, who: str) -> tuple[HistoryKind, Happening] | None:
    """What a row of the audit trail is in the history of its device; None where it is nothing.

    What the service or the device did by itself is nobody's.
    """
    who = "" if who == _SERVICE or who.startswith(_DEVICE) else who
    if what.startswith(_COMMAND):
        words = f"{what.removeprefix(_COMMAND)} {detail}".strip()
        return HistoryKind.COMMAND, Happening("asked", words, who)
    found = OF_AUDIT.get(what)
    if found is None:
        return None
    kind, word = found
    return kind, Happening(word, detail, who)


def once_more(before: Happening, since: int, now: Happening, at: int) -> Happening | None:
    """The entry that tells both, where the first began (`since`) less than an hour ago.

    >>> once_more(Happening("online"), 100, Happening("offline"), 160)
    Happening(what='offline', detail='', who='', count=2, until=160)
    """
    if not since <= at < since + LINK_S:
        return None
    return replace(now, count=before.count + 1, until=at)


def changes(before: Capabilities, after: Capabilities) -> str:
    """What became of a board, in words: `kernel 6.6.31 -> 6.12.1`; empty where nothing did."""
    found = [text for field in fields(Capabilities) for text in _changed(field.name, before, after)]
    return ", ".join(found)[:MAX_DETAIL]


def _changed(name: str, before: Capabilities, after: Capabilities) -> Iterator[str]:
    old: Any = getattr(before, name)
    new: Any = getattr(after, name)
    if isinstance(old, dict):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                yield f"{key} {old.get(key, 'none')} -> {new.get(key, 'none')}"
    elif isinstance(old, tuple):
        yield from (f"{name} +{word}" for word in sorted(set(new) - set(old)))
        yield from (f"{name} -{word}" for word in sorted(set(old) - set(new)))
    elif old != new:
        yield f"{name} {old or 'none'} -> {new or 'none'}"


def quarantined(
    before: Collection[str], after: Collection[str], names: Mapping[str, str]
) -> Iterator[Happening]:
    """What a device put in quarantine and let go; `names` are those of bundles, by digest."""
    for word, digests in (
        ("quarantined", [digest for digest in after if digest not in before]),
        ("released", [digest for digest in before if digest not in after]),
    ):
        for digest in digests:
            yield Happening(word, f"{names.get(digest, '')} {digest[:16]}".strip())
