"""Where models are measured, as people write it: this machine, `ssh://…`, `https://…`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

from edgefleet_contract.errors import Malformed

HERE: Final = "here"
PROGRAM: Final = "edge-agent"
_HOST: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}|\[[0-9A-Fa-f:.]+\]|[0-9A-Fa-f:]+")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_PROGRAM: Final = re.compile(r"/[A-Za-z0-9._/-]{1,255}")
_FINGERPRINT: Final = re.compile(r"sha256//[A-Za-z0-9+/]{43}=")
_HINT: Final = (
    "here, ssh://USER@HOST[:PORT][/path/to/edge-agent], or https://HOST:PORT[#sha256//FINGERPRINT]"
)


@dataclass(frozen=True, slots=True)
class Here:
    """The desk itself."""


@dataclass(frozen=True, slots=True)
class Ssh:
    """A board that one may log in to: `edge-agent measure` is started there."""

    host: str
    user: str = ""
    port: int = 0
    program: str = PROGRAM


@dataclass(frozen=True, slots=True)
class Https:
    """A board whose agent runs: asked by its network door, known by the `fingerprint` of its key
    where one is given."""

    host: str
    port: int
    fingerprint: str = ""


Place: TypeAlias = Here | Ssh | Https


def parse_place(text: str) -> Place:
    """The place that a text names.

    >>> parse_place("ssh://pi@cam-1.local/opt/edgefleet/bin/edge-agent")
    Ssh(host='cam-1.local', user='pi', port=0, program='/opt/edgefleet/bin/edge-agent')

    Raises:
        Malformed: it is none; a host that ssh would take for an option is none.
    """
    if text == HERE:
        return Here()
    try:
        found = urlsplit(text)
        port = found.port or 0
    except ValueError:
        raise _none(text) from None
    if found.query or found.password is not None or not _HOST.fullmatch(found.hostname or ""):
        raise _none(text)
    if found.scheme == "ssh":
        return _ssh(text, found, port)
    if found.scheme == "https":
        return _https(text, found, port)
    raise _none(text)


def kind_of(text: str) -> str:
    """The way to a place, which tells nobody where it is."""
    return text.partition(":")[0]


def _ssh(text: str, found: SplitResult, port: int) -> Ssh:
    user, program = found.username or "", found.path.rstrip("/")
    if found.fragment or (user and not _USER.fullmatch(user)):
        raise _none(text)
    if program and not _PROGRAM.fullmatch(program):
        raise _none(text)
    return Ssh(found.hostname or "", user, port, program or PROGRAM)


def _https(text: str, found: SplitResult, port: int) -> Https:
    if found.username or found.path.rstrip("/") or not port:
        raise _none(text)
    if found.fragment and not _FINGERPRINT.fullmatch(found.fragment):
        raise _none(text)
    return Https(found.hostname or "", port, found.fragment)


def _none(text: str) -> Malformed:
    return Malformed(f"{text[:120]!r} is no place to measure at", hint=_HINT)
