"""The certificates of devices: issued, renewed for the same key, taken back.

The list of those that were taken back (an X.509 CRL) is made from the store, whole, at each start
and after each change; the broker reads it. Nothing is ever taken off it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from edgefleet_contract.enrolment import CertificateRequest, CertificateResponse
from edgefleet_contract.errors import Malformed
from edgefleet_contract.keys import PublicKey
from edgefleet_contract.messages import render
from edgefleet_contract.throttle import Throttle
from edgefleet_fleet.adapters.sql.certificates import FORGOTTEN, REVOKED
from edgefleet_fleet.authority import Issued, open_request
from edgefleet_fleet.datadir import write_file
from edgefleet_fleet.errors import Conflict, Denied, NotFound, TooMany
from edgefleet_fleet.records import Device
from edgefleet_fleet.work import Actor, Room, Work

AGAIN_S: Final = 600
"""How soon a device that cannot come to the broker may ask again: an answer may be lost."""


class Certificates:
    """Who has a certificate, and who no longer."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._throttle = Throttle()

    def issue(self, work: Work, device: str, key: PublicKey) -> Issued:
        """A certificate for a device's key, kept in the store.

        Raises:
            Denied: the key was revoked.
        """
        self._require_good(work, key.id)
        issued = self._room.authority.issue_client(
            device,
            key,
            now=datetime.fromtimestamp(work.now, UTC),
            days=self._room.config.certificate_days,
        )
        expires = int(issued.expires.timestamp())
        work.tx.certificates.add(
            issued.serial, device=device, key_id=key.id, at=work.now, expires=expires
        )
        return issued

    def renew(self, work: Work, device: Device, request: CertificateRequest) -> None:
        """Answer a device that asks for its next certificate; the answer follows the commit.

        Raises:
            Malformed: not a request, not of the key that enrolled, or asked again too soon.
        """
        csr = open_request(request.csr)
        if csr.key.id != device.key_id:
            raise Malformed(f"{device.id} asks for a certificate of another key than it enrolled")
        newest = work.tx.certificates.newest(device.id)
        if newest is not None and (work.now - newest[0]) * 20 < newest[1] - newest[0]:
            raise Malformed(f"{device.id} asks for a certificate, and has a new one")
        answer = render(self._issue_next(work, device.id, csr.key))
        work.after.append(lambda: self._room.answer(device.id, answer))

    def revive(self, request: CertificateRequest, *, address: str) -> CertificateResponse:
        """The next certificate of a device whose last one ended: it cannot come to the broker.

        It needs no certificate to ask: the request is signed by the key that enrolled.

        Raises:
            Malformed: not a request.
            Denied: no device in service has this name and key.
            Conflict: it asked a moment ago.
            TooMany: too much that was wrong came from this address.
        """
        now = self._room.clock()
        seconds = self._throttle.wait(address, now=now)
        if seconds:
            raise TooMany(seconds, what="wrong requests for a certificate")
        try:
            csr = open_request(request.csr)
            with self._room.work(Actor(f"device:{request.device}"[:64], address)) as work:
                device = work.tx.devices.get(request.device)
                if device is None or not device.is_active or device.key_id != csr.key.id:
                    raise Denied("no device in service has this name and key")
                newest = work.tx.certificates.newest(device.id)
                if newest is not None and 0 <= work.now - newest[0] < AGAIN_S:
                    raise Conflict("there was a new certificate a moment ago", hint="wait")
                work.changed("device", device.id)
                return self._issue_next(work, device.id, csr.key)
        except (Malformed, Denied):
            self._throttle.failed(address, now=now)
            raise

    def _issue_next(self, work: Work, device: str, key: PublicKey) -> CertificateResponse:
        issued = self.issue(work, device, key)
        expires = int(issued.expires.timestamp())
        work.tx.devices.set_certificate(device, serial=issued.serial, expires=expires)
        work.record("device.renew", device, f"until {expires}")
        return CertificateResponse(device, issued.pem)

    def take_back(self, work: Work, device: Device, *, forget: bool) -> None:
        """Revoke every certificate of a device, and (unless it is only forgotten) its key."""
        cause = FORGOTTEN if forget else REVOKED
        work.tx.certificates.revoke(device.id, at=work.now, cause=cause)
        if not forget:
            work.tx.certificates.ban(device.key_id)
            work.tx.devices.revoke(device.id, at=work.now)

    def require_active(self, work: Work, name: str) -> Device:
        """A device that is in service.

        Raises:
            NotFound: there is no such device.
            Conflict: it is revoked already.
        """
        found = work.tx.devices.get(name)
        if found is None or found.is_forgotten:
            raise NotFound(f"there is no device {name!r}", hint="fleet devices list")
        if found.is_revoked:
            raise Conflict(f"device {name!r} is revoked already")
        return found

    def require_free(self, work: Work, name: str, key_id: str) -> Device | None:
        """Whoever has a name, where this key may enrol under it.

        Raises:
            Denied: the device, or the key, was revoked.
            Conflict: another key has the name.
        """
        known = work.tx.devices.get(name)
        if known is not None and known.is_revoked:
            raise Denied(
                f"device {name!r} was revoked",
                hint=f"to give the name to another key: fleet devices forget {name}",
            )
        if known is not None and not known.is_forgotten and known.key_id != key_id:
            raise Conflict(
                f"a device {name!r} with another key is enrolled",
                hint=f"choose another name, or: fleet devices forget {name}",
            )
        self._require_good(work, key_id)
        return known

    @staticmethod
    def _require_good(work: Work, key_id: str) -> None:
        if work.tx.certificates.is_banned(key_id):
            raise Denied(
                "the device's key was revoked",
                hint="a device that is to come back makes a new key: remove identity/device.key",
            )

    def write_list(self) -> None:
        """Write the revocation list for the broker."""
        with self._room.work() as work:
            entries = work.tx.certificates.revoked()
            pem = self._room.authority.revocation_list(
                entries, now=datetime.fromtimestamp(work.now, UTC)
            )
            write_file(self._room.keys.revocations, pem.encode())

    def enforce(self) -> None:
        """Let the broker know, and wait until those who were revoked are off it."""
        self.write_list()
        if self._room.restart_broker is not None:
            self._room.restart_broker()
