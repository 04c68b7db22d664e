"""Devices that ask to enrol and wait for an operator's word.

A request is a device's name, its key and its claim: asked again, it is the same one, and a use of
the claim is counted when it is made. While it is open, its name is held for its key. What was true
when it was made is asked again when it is approved, and when the device fetches its certificate.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from edgefleet_contract.enrolment import EnrolPending, EnrolRequest
from edgefleet_contract.errors import OperatorError, TransientError
from edgefleet_contract.keys import KeyId
from edgefleet_fleet.admission import refusal
from edgefleet_fleet.certificates import Certificates
from edgefleet_fleet.errors import Conflict, Denied, NotFound
from edgefleet_fleet.publications import Publications, root_digest
from edgefleet_fleet.records import Claim, EnrolmentRequest, RequestState
from edgefleet_fleet.work import Actor, Room, Work

MAX_OPEN: Final = 1000
NEW_CLAIM: Final = "make a new one: fleet devices claim"
_AGAIN_S: Final = 60  # between two certificates for one request, where an answer was lost
_LEAST_DIGITS: Final = 16  # of a key id: fewer can be had by trying keys


class Approvals:
    """The requests of one control room."""

    def __init__(self, room: Room, publications: Publications, certificates: Certificates) -> None:
        self._room = room
        self._publications = publications
        self._certificates = certificates

    def ask(
        self, work: Work, claim: Claim, request: EnrolRequest, key_id: KeyId
    ) -> EnrolPending | None:
        """What a device is told that must wait; None once it was approved.

        Raises:
            Denied: an operator said no, the key was revoked, or the claim is spent.
            Conflict: another key has the name, or asked for it first.
            TransientError: too many devices wait, or it fetches its certificate too often.
        """
        name = request.device
        self._certificates.require_free(work, name, key_id)
        known = self._live(work, name)
        if known is None or (known.key_id, known.claim) != (key_id, claim.id):
            known = self._begin(work, claim, request, key_id, before=known)
        if known.state is RequestState.DENIED:
            raise Denied(f"an operator denied {name!r} under this key")
        if known.state is RequestState.WAITING:
            return EnrolPending(name, key_id, retry_after(work.now - known.created_at))
        newest = work.tx.certificates.newest(name)
        if known.state is RequestState.DONE and newest and work.now - newest[0] < _AGAIN_S:
            raise TransientError(f"{name!r} was given a certificate just now", hint="ask later")
        work.tx.requests.set_state(name, RequestState.DONE)
        return None

    def give_way(self, work: Work, name: str, key_id: KeyId) -> None:
        """Make room for a device that need not wait: who only waits has no right to the name yet.

        Raises:
            Conflict: the name was approved for another key.
        """
        known = self._live(work, name)
        if known and known.state is RequestState.APPROVED and known.key_id != key_id:
            raise Conflict(f"the name {name!r} was approved for another key")
        work.tx.requests.drop(name)

    def approve(self, device: str, *, key_id: str, actor: Actor) -> EnrolmentRequest:
        """Let a device in, the next time that it asks; the request.

        Args:
            device: its name.
            key_id: what the operator read on the device, or its beginning; empty: not compared.
            actor: who says so.

        Raises:
            NotFound: it does not wait.
            OperatorError: the key id is too short.
            Conflict: it asks with another key, its name was given away since, or its claim ended.
            Denied: its key was revoked since.
        """
        if key_id and len(key_id) < _LEAST_DIGITS:
            raise OperatorError(f"a key id is compared by {_LEAST_DIGITS} digits or more")
        with self._room.work(actor) as work:
            found = self._require_open(work, device)
            if not found.key_id.startswith(key_id.lower()):
                raise Conflict(
                    f"{device!r} asks with the key {found.key_id[:_LEAST_DIGITS]}, not {key_id}",
                    hint=f"if no device of yours prints that key id: fleet devices deny {device}",
                )
            why_not = self._claim_refusal(work, found)
            if why_not:
                raise Conflict(f"{device!r} cannot be let in: {why_not}", hint=NEW_CLAIM)
            self._certificates.require_free(work, device, found.key_id)
            if found.state is RequestState.APPROVED:
                raise Conflict(f"{device!r} is approved already")
            work.tx.requests.set_state(device, RequestState.APPROVED)
            work.record("request.approve", device, f"key {found.key_id}, claim {found.claim}")
            work.changed("request", device)
        return replace(found, state=RequestState.APPROVED)

    def deny(self, device: str, *, actor: Actor) -> None:
        """End a request; its key gets no certificate by the claim that it came with.

        Raises:
            NotFound: it does not wait.
        """
        with self._room.work(actor) as work:
            found = self._require_open(work, device)
            work.tx.requests.set_state(device, RequestState.DENIED)
            work.record("request.deny", device, f"key {found.key_id}, claim {found.claim}")
            work.changed("request", device)

    def _begin(
        self,
        work: Work,
        claim: Claim,
        request: EnrolRequest,
        key_id: KeyId,
        *,
        before: EnrolmentRequest | None,
    ) -> EnrolmentRequest:
        name = request.device
        if before is not None and before.state.is_open and before.key_id != key_id:
            raise Conflict(
                f"another key asked for the name {name!r} first, and waits for approval",
                hint=f"choose another name, or: fleet devices deny {name}",
            )
        if len(work.tx.requests.open(at=work.now)) >= MAX_OPEN:
            raise TransientError(
                f"{MAX_OPEN} devices wait for approval: no more are taken",
                hint="fleet devices requests; then approve or deny some",
            )
        use(work, claim)
        made = EnrolmentRequest(
            device=name,
            key_id=key_id,
            claim=claim.id,
            state=RequestState.WAITING,
            hw=request.capabilities.hw,
            board=request.capabilities.board,
            address=work.actor.address,
            created_at=work.now,
        )
        work.tx.requests.put(made, at=work.now)
        work.record("request.make", name, f"key {key_id}, claim {claim.id}")
        work.changed("request", name)
        return made

    def _live(self, work: Work, device: str) -> EnrolmentRequest | None:
        found = work.tx.requests.get(device)
        return found if found is not None and not self._claim_refusal(work, found) else None

    def _claim_refusal(self, work: Work, found: EnrolmentRequest) -> str:
        root = root_digest(self._publications.require(work.tx))
        return refusal(work.tx.claims.get(found.claim), now=work.now, root=root)

    @staticmethod
    def _require_open(work: Work, device: str) -> EnrolmentRequest:
        found = work.tx.requests.get(device)
        if found is None or not found.state.is_open:
            raise NotFound(f"no device {device!r} waits", hint="fleet devices requests")
        return found


def use(work: Work, claim: Claim) -> None:
    """Count a use of a claim.

    Raises:
        Denied: there is none left.
    """
    if not work.tx.claims.use(claim.id):
        raise Denied("the claim was used as often as it may be", hint=NEW_CLAIM)


def retry_after(age: int) -> int:
    """Seconds until a device asks again: soon while somebody may stand by, rarely later."""
    return max(2, min(60, age // 10))
