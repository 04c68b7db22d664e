"""What a look at a control room means: facts in, findings out. Pure; who gathers them is elsewhere.

A finding has a name that scripts may rely on, how bad it is, what was found, and what to do about
it. `fail`: devices, people or rollouts are kept from something now. `warn`: they will be, or a
person should look. Times are seconds since 1970, sizes bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

SAY_WHO: Final = (
    "set FLEET_TOKEN, or name the data directory with --data; fleet users add makes one"
)
_HOUR: Final = 3600
_DAY: Final = 24 * _HOUR
SILENT_S: Final = 7 * _DAY
"""A device that was not heard of for so long is worth a look."""
UPLOAD_S: Final = _HOUR
"""A bundle that is not complete after so long is not on its way any more."""
_FEW: Final = 5
_MIN_FREE: Final = 64 * 2**20
_LOW_FREE: Final = 2**30
_SOON: Final[Mapping[str, int]] = {
    "root": 30 * _DAY,
    "targets": 14 * _DAY,
    "snapshot": _DAY,
    "timestamp": 12 * _HOUR,
}
_MEND: Final[Mapping[str, str]] = {
    "root": "fleet keys rotate root, with enough of the offline keys",
    "targets": "fleet keys refresh --key publisher.pem",
    "snapshot": "restart the service; its log says why it does not sign",
    "timestamp": "restart the service; its log says why it does not sign",
}
_CERTIFICATE_SOON_S: Final = 30 * _DAY
_SKEW_WARN_S: Final = 5
_SKEW_FAIL_S: Final = 300


class Status(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: Status
    found: str
    do: str = ""


@dataclass(frozen=True, slots=True)
class Disk:
    """The room on a disk."""

    path: str
    free: int
    total: int


@dataclass(frozen=True, slots=True)
class Blobs:
    """What a look at the shelf found; at most so many blobs are looked at."""

    looked_at: int = 0
    named: int = 0
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Retained:
    """What the broker keeps for devices, against what it should keep."""

    expected: int = 0
    absent: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the service found of itself. An `*_error` is empty where all went well."""

    now: int
    database_error: str = ""
    revision: str = ""
    newest_revision: str = ""
    shelf_error: str = ""
    blobs: Blobs = field(default_factory=Blobs)
    leftovers: int = 0
    incomplete: tuple[str, ...] = ()
    disks: tuple[Disk, ...] = ()
    is_connected: bool = True
    retained: Retained = field(default_factory=Retained)
    has_root: bool = True
    director_listed: bool = True
    repository_named: bool = True
    open_secrets: tuple[str, ...] = ()
    documents: Mapping[str, int] = field(default_factory=dict)
    certificates: Mapping[str, int] = field(default_factory=dict)
    orders: Mapping[str, int] = field(default_factory=dict)
    silent: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()
    webhooks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeskFacts:
    """What is seen of the service from where the operator sits."""

    url: str
    is_loopback: bool
    unreachable: str = ""
    unverified: str = ""
    refused: str = ""
    who: str = ""
    role: str = ""
    service_version: str = ""
    own_version: str = ""
    skew_s: float | None = None


def judge(facts: Facts) -> tuple[Finding, ...]:
    """What a control room's facts mean, in the order in which they are shown."""
    return tuple(_judge(facts))


def exit_code(findings: tuple[Finding, ...]) -> int:
    """0, or 1 where something failed."""
    return int(any(finding.status is Status.FAIL for finding in findings))


def judge_desk(facts: DeskFacts) -> tuple[Finding, ...]:
    """What the view from the desk means."""
    return tuple(_judge_desk(facts))


def _judge(facts: Facts) -> Iterator[Finding]:
    yield _database(facts)
    if facts.database_error:
        return  # all else would be hearsay
    yield _schema(facts)
    yield _shelf(facts)
    yield _blobs(facts.blobs)
    if facts.leftovers:
        found = f"{facts.leftovers} blobs on the shelf that nobody names"
        do = "nothing: they are taken away within six hours; where not, the service's log says why"
        yield Finding("leftovers", Status.WARN, found, do)
    yield from (_disk(disk) for disk in facts.disks)
    yield _broker(facts)
    if facts.is_connected and facts.has_root:
        yield _retained(facts.retained)
    yield from _keys(facts)
    for role, expires in facts.documents.items():
        yield _document(role, expires, facts.now)
    for name, expires in facts.certificates.items():
        yield _certificate(name, expires, facts.now)
    yield _orders(facts)
    yield _listed(
        "devices",
        facts.silent,
        f"not heard of for {SILENT_S // _DAY} days",
        "look at their power and network; fleet devices decommission takes one out",
    )
    yield _listed(
        "rollouts",
        facts.paused,
        "paused",
        "fleet rollouts show tells why; then fleet rollouts resume, or abort",
    )
    yield _webhooks(facts.webhooks)
    yield _listed(
        "bundles",
        facts.incomplete,
        "not complete",
        "push it again: fleet bundles push; or fleet bundles remove",
    )


def _database(facts: Facts) -> Finding:
    if facts.database_error:
        do = "make room on its disk, or start the data base; see the service's log"
        return Finding("database", Status.FAIL, f"cannot be written: {facts.database_error}", do)
    return Finding("database", Status.OK, "takes writes")


def _schema(facts: Facts) -> Finding:
    if facts.revision != facts.newest_revision:
        found = f"is at revision {facts.revision}, this release has {facts.newest_revision}"
        return Finding("schema", Status.FAIL, found, "restart the service: it brings it up to date")
    return Finding("schema", Status.OK, f"is at revision {facts.revision}, the newest")


def _shelf(facts: Facts) -> Finding:
    if facts.shelf_error:
        do = "make room on its disk, or mend its rights or its address; see the service's log"
        return Finding("shelf", Status.FAIL, facts.shelf_error, do)
    return Finding("shelf", Status.OK, "takes a blob and gives it back")


def _blobs(blobs: Blobs) -> Finding:
    looked = f"{blobs.looked_at} of {blobs.named} blobs of complete bundles"
    if blobs.missing:
        found = f"{looked} looked at; missing or cut off: {_some(blobs.missing)}"
        do = "push the bundle again, or restore the shelf from a backup"
        return Finding("blobs", Status.FAIL, found, do)
    return Finding("blobs", Status.OK, f"{looked} looked at, all there")


def _disk(disk: Disk) -> Finding:
    found = f"{disk.path}: {disk.free / 2**20:,.0f} MiB free of {disk.total / 2**20:,.0f}"
    do = "make room: fleet bundles remove, or a larger disk"
    if disk.free < _MIN_FREE:
        return Finding("disk", Status.FAIL, found, do)
    if disk.free < _LOW_FREE:
        return Finding("disk", Status.WARN, found, do)
    return Finding("disk", Status.OK, found)


def _broker(facts: Facts) -> Finding:
    if facts.is_connected:
        return Finding("broker", Status.OK, "connected")
    do = "is mosquitto installed and its port free? the service's log has its last words"
    return Finding("broker", Status.FAIL, "not connected: devices hear nothing", do)


def _retained(kept: Retained) -> Finding:
    do = "restart the service: it publishes every order again"
    if kept.error:
        return Finding("retained", Status.FAIL, f"the broker does not say: {kept.error}", do)
    if kept.absent or kept.other:
        wrong = (*kept.absent, *kept.other)
        found = f"the broker keeps no order, or an old one, for {_some(wrong)}"
        return Finding("retained", Status.FAIL, found, do)
    return Finding("retained", Status.OK, f"the broker keeps {kept.expected} orders, the newest")


def _keys(facts: Facts) -> Iterator[Finding]:
    if facts.open_secrets:
        found = f"others on this machine can read {_some(facts.open_secrets)}"
        yield Finding("secrets", Status.FAIL, found, "chmod 600 the files, 700 the folder keys/")
    else:
        yield Finding("secrets", Status.OK, "only the service's user can read its keys")
    if not facts.has_root:
        do = "fleet keys init --out OFFLINE-DIR --publisher publisher.pem"
        yield Finding("trust", Status.WARN, "nobody is trusted yet: no root was made", do)
        return
    if facts.director_listed:
        yield Finding("director", Status.OK, "the policy lists the key that signs orders")
    else:
        found = "the policy does not list the key that signs orders: no device takes them"
        yield Finding("director", Status.FAIL, found, "fleet keys rotate director --key KEY")
    if facts.repository_named:
        yield Finding("repository", Status.OK, "the root names the key that keeps documents fresh")
    else:
        found = "the root does not name the key that keeps documents fresh"
        yield Finding("repository", Status.FAIL, found, "fleet keys rotate repository")


def _document(role: str, expires: int, now: int) -> Finding:
    left = expires - now
    if left <= 0:
        found = f"ended {_span(-left)} ago: devices take nothing new"
        return Finding(f"document.{role}", Status.FAIL, found, _MEND[role])
    found = f"good for {_span(left)}"
    if left < _SOON[role]:
        return Finding(f"document.{role}", Status.WARN, found, _MEND[role])
    return Finding(f"document.{role}", Status.OK, found)


def _certificate(name: str, expires: int, now: int) -> Finding:
    left = expires - now
    do = "restart the service: it makes the next one"
    if name == "authority":
        do = "a new control room: devices must enrol with a new authority before this one ends"
    elif name == "elsewhere":
        do = "get the next one from whoever gave it; it is read again every six hours"
    if not expires:
        return Finding(f"certificate.{name}", Status.FAIL, "is not there, or cannot be read", do)
    if left <= 0:
        return Finding(f"certificate.{name}", Status.FAIL, f"ended {_span(-left)} ago", do)
    status = Status.WARN if left < _CERTIFICATE_SOON_S else Status.OK
    found = f"good for {_span(left)}"
    return Finding(f"certificate.{name}", status, found, do if status is Status.WARN else "")


def _orders(facts: Facts) -> Finding:
    out = tuple(name for name, expires in facts.orders.items() if expires <= facts.now)
    soon = tuple(name for name, expires in facts.orders.items() if 0 < expires - facts.now < _DAY)
    do = "restart the service: it signs them again; its log says why it did not"
    if out:
        found = f"ran out: {_some(out)}; a device that comes back does not take it"
        return Finding("orders", Status.FAIL, found, do)
    if soon:
        return Finding("orders", Status.WARN, f"run out within a day: {_some(soon)}", do)
    return Finding("orders", Status.OK, f"{len(facts.orders)} hold for a day or more")


def _webhooks(webhooks: Mapping[str, str]) -> Finding:
    stopped = tuple(f"{name} ({why})" for name, why in webhooks.items() if why)
    do = "mend the address, then fleet webhooks resume"
    return _listed("webhooks", stopped, "stopped", do)


def _listed(name: str, bad: tuple[str, ...], what: str, do: str) -> Finding:
    if bad:
        return Finding(name, Status.WARN, f"{what}: {_some(bad)}", do)
    return Finding(name, Status.OK, f"none {what}")


def _judge_desk(facts: DeskFacts) -> Iterator[Finding]:
    if facts.unverified:
        yield Finding("url", Status.OK, f"something answers at {facts.url}")
        do = "name the authority of its certificate: FLEET_CA, or fleet --ca FILE"
        yield Finding("tls", Status.FAIL, facts.unverified, do)
        return
    if facts.unreachable:
        do = "is fleet serve running? name it with --url or FLEET_URL; https:// with TLS"
        yield Finding("url", Status.FAIL, facts.unreachable, do)
        return
    yield Finding("url", Status.OK, f"a control room answers at {facts.url}")
    yield _tls(facts)
    if facts.refused:
        yield Finding("token", Status.FAIL, facts.refused, SAY_WHO)
    else:
        yield Finding("token", Status.OK, f"is that of {facts.who}, {facts.role}")
    if facts.service_version == facts.own_version:
        yield Finding("version", Status.OK, f"both are {facts.own_version}")
    else:
        found = f"the service is {facts.service_version}, this program {facts.own_version}"
        yield Finding("version", Status.WARN, found, "install the release of the service here")
    if facts.skew_s is not None:
        yield _clock(facts.skew_s)


def _tls(facts: DeskFacts) -> Finding:
    if facts.url.startswith("https:"):
        return Finding("tls", Status.OK, "its certificate is from the authority that is believed")
    if facts.is_loopback:
        return Finding("tls", Status.OK, "none, and none is needed on one machine")
    do = "fleet serve --tls own, or a proxy with TLS; then FLEET_URL=https://…"
    return Finding("tls", Status.WARN, "none: tokens and models can be read on the way", do)


def _clock(skew_s: float) -> Finding:
    ahead = "ahead of" if skew_s > 0 else "behind"
    found = f"the service's clock is {abs(skew_s):.0f} s {ahead} this machine's"
    do = "let both follow NTP: timedatectl set-ntp true"
    if abs(skew_s) >= _SKEW_FAIL_S:
        return Finding("clock", Status.FAIL, found, do)
    if abs(skew_s) >= _SKEW_WARN_S:
        return Finding("clock", Status.WARN, found, do)
    return Finding("clock", Status.OK, "the service's clock and this machine's agree")


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + more


def _span(seconds: int) -> str:
    if seconds >= 2 * _DAY:
        return f"{seconds // _DAY} days"
    if seconds >= 2 * _HOUR:
        return f"{seconds // _HOUR} hours"
    return f"{seconds // 60} minutes"
