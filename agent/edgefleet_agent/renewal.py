"""The device's certificate is replaced before it ends, over the link that it already has.

Asked for when a third of its life is left: at each connection and every hour. The answer must be
from the authority, for our key and name, and end later. It is written beside the old one, which
stays until the broker has taken the new one once.

A device that was off for longer than its certificate lived comes back by itself: the broker lets
it in no more, so it asks the control room's HTTP service, with a request that its key signed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from cryptography import x509

from edgefleet_agent.adapters.fs import FileSystem, write_durably
from edgefleet_agent.adapters.tls import Tls
from edgefleet_agent.enrol import ask, certificate_request, check_certificate
from edgefleet_agent.identity import Identity
from edgefleet_contract import messages
from edgefleet_contract.enrolment import CertificateRequest, CertificateResponse
from edgefleet_contract.errors import OperatorError, PeerError, TransientError
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.topics import Channel

log = logging.getLogger(__name__)

_LEFT: Final = 3


def is_due(certificate: x509.Certificate, now: float) -> bool:
    """Whether a third of a certificate's life, or less, is left at a time (seconds since 1970)."""
    begin = certificate.not_valid_before_utc.timestamp()
    end = certificate.not_valid_after_utc.timestamp()
    return (end - now) * _LEFT <= end - begin


class Link(Protocol):
    """The connection whose certificate it is: `MqttLink`."""

    def publish(self, channel: Channel, payload: bytes) -> object:
        """Send on one of this device's channels."""
        ...

    def try_certificate(self, certificate: Path, *, tried: Callable[[bool], None]) -> None:
        """Connect anew with another certificate; `tried` is told whether the broker took it."""
        ...

    def use_certificate(self) -> None:
        """Connect with the certificate that is in its place now."""
        ...


class Renewal:
    """One device's certificate; its methods are called on the event loop's thread or a worker.

    `tls` is how the control room is spoken to over https.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        link: Link,
        tls: Tls,
        clock: Callable[[], float] = time.time,
        fs: FileSystem | None = None,
    ) -> None:
        self._identity, self._link, self._clock = identity, link, clock
        self._tls = tls.anonymous
        self._fs = fs or FileSystem()
        self._next = identity.certificate.with_name("device.crt.next")
        self._failed: set[int] = set()
        self._trying = 0

    def ask_if_due(self) -> None:
        """Ask for the next certificate where it is time."""
        if not is_due(self._current(), self._clock()):
            return
        log.info("certificate: a third of its life is left, asking for the next")
        self._link.publish(Channel.ENROL_REQUEST, messages.render(self._request()))

    def try_again(self) -> None:
        """Ask as `ask_if_due`, and take an answer with which there was no connection before."""
        self._failed.clear()
        self.ask_if_due()

    def take(self, raw: bytes) -> None:
        """Use an answer: verify it, write it, connect with it. Blocks for a moment."""
        pem = self._later(raw)
        if pem is None:
            return  # the one that we have, told again at each connection
        found = x509.load_pem_x509_certificate(pem)
        if found.serial_number in (*self._failed, self._trying):
            return  # told twice: retained, and queued while the link was down
        try:
            write_durably(self._fs, self._next, pem)
        except OSError as error:
            log.warning("certificate: cannot be written, the old one stays: %s", error.strerror)
            return
        self._trying = found.serial_number
        self._link.try_certificate(self._next, tried=lambda good: self._tried(found, is_good=good))

    def revive(self, *, is_refused: bool = False) -> bool:
        """Replace a certificate that has ended; False where that is worth another try soon. Blocks.

        `is_refused`: the broker says that it has ended, whatever our clock says. The old one is
        worth nothing any more, so the new one takes its place before it was tried.
        """
        url = self._identity.enrolment.url
        if not url or not (is_refused or self._has_ended()):
            return True
        log.info("certificate: it has ended, asking %s for the next", url)
        try:
            _, raw = ask(url, "/api/v1/renew", messages.render(self._request()), self._tls)
        except TransientError as error:
            log.info("certificate: %s", error.message)
            return False
        except (OperatorError, PeerError) as error:
            log.warning("certificate: %s", error.message)
            return True
        pem = self._later(raw)
        if pem is not None:
            try:
                write_durably(self._fs, self._identity.certificate, pem)
            except OSError as error:
                log.warning("certificate: cannot be kept, asked for again: %s", error.strerror)
                return False
            self._link.use_certificate()
            log.info("certificate: renewed after its end")
        return True

    def _has_ended(self) -> bool:
        return self._clock() >= self._current().not_valid_after_utc.timestamp()

    def _request(self) -> CertificateRequest:
        device = self._identity.enrolment.device
        csr = certificate_request(PrivateKey.load(self._identity.key), device)
        return CertificateRequest(device, csr)

    def _later(self, raw: bytes) -> bytes | None:
        """The certificate (PEM) of an answer, if it is good for us and ends after what we have."""
        device = self._identity.enrolment.device
        try:
            answer = messages.parse(CertificateResponse, raw, device=device)
            check_certificate(
                answer.certificate,
                self._identity.authority.read_text(),
                PrivateKey.load(self._identity.key).public,
                device,
            )
        except PeerError as error:
            log.warning("certificate: not taken: %s", error.message)
            return None
        pem = answer.certificate.encode()
        found = x509.load_pem_x509_certificate(pem)
        ends_later = found.not_valid_after_utc > self._current().not_valid_after_utc
        return pem if ends_later else None

    def _tried(self, certificate: x509.Certificate, *, is_good: bool) -> None:
        self._trying = 0
        if not is_good:
            self._failed.add(certificate.serial_number)
            return
        try:
            self._fs.replace(self._next, self._identity.certificate)
            self._fs.fsync_dir(self._identity.certificate.parent)
        except OSError as error:  # in paho's thread, which must not end with it
            log.warning("certificate: cannot be kept, asked for again: %s", error.strerror)
            return
        log.info("certificate: renewed until %s", certificate.not_valid_after_utc.date())

    def _current(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self._identity.certificate.read_bytes())
