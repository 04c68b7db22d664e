"""How a claim lets its holders in: at once, by a list of names, or when an operator approves.

A list names devices, and may pin the key of each; whoever is on it comes in at once. With
`approve`, everybody else waits; without, everybody else is refused. Decides only: no clock, no
data base.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edgefleet_contract.bundle import Digest, is_digest, is_name
from edgefleet_contract.errors import Malformed
from edgefleet_fleet.errors import Denied
from edgefleet_fleet.records import Claim

MAX_LISTED: Final = 10_000
_FORM: Final = "a line is a device's name, or its name and its key id (64 lower-case hex digits)"


@dataclass(frozen=True, slots=True)
class Listed:
    """A device that may come in at once; with a `key_id`, under that key alone."""

    device: str
    key_id: str = ""

    def __post_init__(self) -> None:
        if not is_name(self.device):
            raise Malformed(f"{self.device[:80]!r} cannot be a device's name", hint=_FORM)
        if self.key_id and not is_digest(self.key_id):
            raise Malformed(f"{self.device}: {self.key_id[:80]!r} is no key id", hint=_FORM)


def parse_list(text: str, *, what: str) -> tuple[Listed, ...]:
    """The list in a text: `name` or `name key-id` a line; blank lines and `# …` are passed over.

    Raises:
        Malformed: naming the line.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) > 2:
            raise Malformed(f"{what}, line {number}: {len(words)} words", hint=_FORM)
        try:
            found.append(Listed(*words))
        except Malformed as error:
            raise Malformed(f"{what}, line {number}: {error.message}", hint=error.hint) from None
    return tuple(found)


def check_list(listed: Iterable[Listed]) -> None:
    """Hold a list against itself.

    Raises:
        Malformed: a name stands twice, or there are too many.
    """
    seen: set[str] = set()
    for entry in listed:
        if entry.device in seen:
            raise Malformed(f"{entry.device} stands twice in the list")
        seen.add(entry.device)
    if len(seen) > MAX_LISTED:
        raise Malformed(f"{len(seen)} devices in a list, at most {MAX_LISTED}")


def refusal(claim: Claim | None, *, now: int, root: Digest) -> str:
    """Why a claim is worth nothing; empty where it is good. How often it was used is not asked."""
    if claim is None:
        return "the claim is not known to this fleet"
    if claim.revoked:
        return "the claim was revoked"
    if claim.expires_at <= now:
        return "the claim is past its date"
    if claim.trust_sha256 != root:
        return "the fleet's root changed since the claim was made"
    return ""


def must_wait(claim: Claim, entry: Listed | None, *, device: str, key_id: str) -> bool:
    """Whether a holder of a claim needs an operator's word; `entry` is its line of the list.

    Raises:
        Denied: it is not on the list, or its name is there with another key.
    """
    if entry is None:
        if claim.listed and not claim.approve:
            raise Denied(f"the claim is not for {device!r}: it lists the devices that may use it")
        return claim.approve
    if entry.key_id not in ("", key_id):
        raise Denied(f"the claim lists {device!r} with another key than {key_id[:16]}")
    return False
