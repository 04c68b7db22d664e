"""How a device becomes one of the fleet: claims, and the certificate that they are worth.

A claim's secret is known to the person who carries it and to nobody else: the store has its hash.
Whether its holder comes in at once or waits for an operator, `admission.py` decides. A name belongs
to the key that enrolled it first, until the operator forgets the device.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from edgefleet_contract.bundle import sha256
from edgefleet_contract.enrolment import EnrolPending, EnrolRequest, EnrolResponse
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.sealed import parse_seal_key
from edgefleet_contract.trust import Claim
from edgefleet_fleet.admission import Listed, check_list, must_wait, refusal
from edgefleet_fleet.approvals import NEW_CLAIM, Approvals, use
from edgefleet_fleet.authority import RESERVED, Request, open_request
from edgefleet_fleet.certificates import Certificates
from edgefleet_fleet.deployments import Deployments
from edgefleet_fleet.errors import Denied, NotFound
from edgefleet_fleet.publications import Publications, root_digest
from edgefleet_fleet.records import Claim as ClaimRow
from edgefleet_fleet.records import Device
from edgefleet_fleet.work import Actor, Room, Work


class Enrolment:
    """Claims and certificates."""

    def __init__(self, room: Room, deployments: Deployments, publications: Publications) -> None:
        self._room = room
        self._deployments = deployments
        self._publications = publications
        self.certificates = Certificates(room)
        self.approvals = Approvals(room, publications, self.certificates)

    def make_claim(
        self,
        *,
        uses: int | None,
        hours: float,
        actor: Actor,
        approve: bool = False,
        listed: Sequence[Listed] = (),
    ) -> tuple[int, Claim]:
        """A new claim and its number; its secret is said here once and never again.

        Args:
            uses: how many devices may use it; None: as many as are listed, or one.
            hours: how long it lives.
            actor: who makes it.
            approve: whoever is not listed waits for an operator.
            listed: who comes in at once; nobody else does, unless `approve` is set.

        Raises:
            OperatorError: no uses, no time, or no root was made yet.
            Malformed: a name is listed twice.
        """
        check_list(listed)
        uses = uses if uses is not None else len(listed) or 1
        if not 1 <= uses <= 10_000 or not 0 < hours <= 24 * 366:
            raise OperatorError("a claim has 1 to 10000 uses and lives up to a year")
        secret = secrets.token_urlsafe(32)
        with self._room.work(actor) as work:
            digest = root_digest(self._publications.require(work.tx))
            number = work.tx.claims.add(
                secret_sha256=sha256(secret.encode()),
                at=work.now,
                by=actor.who,
                expires=work.now + int(hours * 3600),
                uses=uses,
                trust=digest,
                approve=approve,
                listed=listed,
            )
            detail = f"{uses} uses, {hours:g} hours"
            detail += f", {len(listed)} listed" if listed else ""
            detail += ", others by approval" if approve else ""
            work.record("claim.make", str(number), detail)
            work.changed("claim", str(number))
        return number, Claim(self._room.fleet, secret, digest)

    def revoke_claim(self, number: int, *, actor: Actor) -> None:
        """End a claim.

        Raises:
            NotFound: there is no such claim.
        """
        with self._room.work(actor) as work:
            if not work.tx.claims.revoke(number):
                raise NotFound(f"there is no claim {number}")
            work.record("claim.revoke", str(number))
            work.changed("claim", str(number))

    def enrol(self, request: EnrolRequest, *, address: str) -> EnrolResponse | EnrolPending:
        """A certificate for a device that holds a claim, or how long to wait for an operator.

        Raises:
            Denied: the claim is unknown, spent, expired or revoked, of an older root, or not for
                this device; or an operator said no.
            Conflict: another key has the name.
            TransientError: too many devices wait for an operator.
            Malformed: the certificate request is not one, or does not vouch for the seal key.
        """
        name = request.device
        csr = open_request(request.csr)
        _check_seal_key(request, csr)
        if name in RESERVED:
            raise Denied(f"no device may be called {name!r}")
        with self._room.work(Actor(f"device:{name}"[:64], address)) as work:
            claim = self._require_claim(work, request.secret)
            entry = work.tx.claims.entry(claim.id, name)
            if must_wait(claim, entry, device=name, key_id=csr.key.id):
                pending = self.approvals.ask(work, claim, request, csr.key.id)
                if pending is not None:
                    return pending
            else:
                use(work, claim)
                self.approvals.give_way(work, name, csr.key.id)
            known = self.certificates.require_free(work, name, csr.key.id)
            issued = self.certificates.issue(work, name, csr.key)
            work.tx.devices.enrol(
                name,
                key_id=csr.key.id,
                serial=issued.serial,
                expires=int(issued.expires.timestamp()),
                at=work.now,
                capabilities=request.capabilities,
                seal_key=request.seal_key,
            )
            # Its last order was taken back, or is sealed for a key that it has no more.
            again = known is not None and (known.is_forgotten or known.seal_key != request.seal_key)
            self._deployments.welcome(work, name, request.capabilities, again=again)
            work.record("device.enrol", name, f"key {csr.key.id[:8]}")
            work.changed("device", name)
            root = self._publications.require(work.tx).root
        return EnrolResponse(
            device=name,
            certificate=issued.pem,
            root=root.decode(),
            metadata=f"{self._room.base_url}/tuf",
            mqtt_host=self._room.mqtt_host,
            mqtt_port=self._room.mqtt_port,
        )

    def _require_claim(self, work: Work, secret: str) -> ClaimRow:
        claim = work.tx.claims.find(sha256(secret.encode()))
        root = root_digest(self._publications.require(work.tx))
        why_not = refusal(claim, now=work.now, root=root)
        if claim is None or why_not:
            raise Denied(why_not, hint=NEW_CLAIM)
        return claim

    def revoke(self, device: str, *, actor: Actor) -> None:
        """Take back a device's certificates and its key, for ever; its name and history stay.

        When this returns, the broker lets it in no more, and nothing that it says is heard.

        Raises:
            NotFound: there is no such device.
            Conflict: it is revoked already.
        """
        with self._room.work(actor) as work:
            found = self.certificates.require_active(work, device)
            self._deployments.part_from(work, device)
            self.certificates.take_back(work, found, forget=False)
            work.record("device.revoke", device, f"key {found.key_id[:8]}")
            work.changed("device", device)
        self.certificates.enforce()

    def forget(self, device: str, *, actor: Actor) -> None:
        """Take a device out of the fleet; its name may be enrolled again by any key.

        Its certificates are revoked; its key, unless it was revoked as well, may enrol again.

        Raises:
            NotFound: there is no such device.
        """
        with self._room.work(actor) as work:
            self._free_name(work, device, may_return=True)
            work.record("device.forget", device)
            work.changed("device", device)
        self.certificates.enforce()

    def decommission(self, device: str, *, actor: Actor) -> None:
        """Take a device out for good: its certificates and its key are worth nothing more, what
        the fleet and the broker keep for it goes. Its events, its numbers and the audit trail stay.

        Its name may be enrolled again by another key.

        Raises:
            NotFound: there is no such device.
        """
        with self._room.work(actor) as work:
            found = self._free_name(work, device, may_return=False)
            work.tx.orders.drop_device(device)
            work.tx.commands.drop_device(device)
            work.record("device.decommission", device, f"key {found.key_id[:8]}")
            work.changed("device", device)
        self.certificates.enforce()
        self._room.clear(device)  # its last will came after the first time

    def _free_name(self, work: Work, device: str, *, may_return: bool) -> Device:
        """The device that has the name no more; whether its key may come back is the caller's."""
        found = work.tx.devices.get(device)
        if found is None or found.is_forgotten:
            raise NotFound(f"there is no device {device!r}")
        self._deployments.part_from(work, device)
        self.certificates.take_back(work, found, forget=may_return)
        work.tx.devices.forget(device)
        work.tx.requests.drop(device)
        work.tx.history.drop_device(device)
        return found


def _check_seal_key(request: EnrolRequest, csr: Request) -> None:
    """The seal key is the device's word: whoever sends an old certificate request again cannot
    have models sealed for a key of their own."""
    if request.seal_key != csr.seal_key:
        raise Malformed("the certificate request does not vouch for the seal key")
    if request.seal_key:
        parse_seal_key(request.seal_key)
