"""TLS as the network's clients see it: one context, and its renewal while it is used.

Standard library only: the front, which has the private key in its memory, loads nothing more for
it. Keys reach it by their file; no worker is told of one.
"""

from __future__ import annotations

import logging
import ssl
from typing import Any, Final

from edgefleet_agent.serving.lan import LanConfig
from edgefleet_contract.errors import OperatorError

_log = logging.getLogger(__name__)

# Of TLS 1.2; all of TLS 1.3 are of this kind: a key that is stolen opens no recording.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


class LanTls:
    """The context that a `[serving.lan]` asks for.

    Raises:
        OperatorError: a file cannot be read, or does not belong to another.
    """

    def __init__(self, lan: LanConfig) -> None:
        self._files = lan.certificate_file, lan.key_file
        self._stamp = self._look()
        self.context = _context(lan)

    def renew(self) -> None:
        """Show whatever the files hold now to new connections; cheap while they do not change.

        Files that do not belong together (one is replaced, the other not yet) change nothing.
        """
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._files, password="")
            self.context.load_cert_chain(*self._files, password="")
        except OSError as error:
            _log.error("%s is not used, the one before is shown: %s", self._files[0], error)

    def _look(self) -> tuple[tuple[int, int], ...]:
        try:
            return tuple((s.st_ino, s.st_mtime_ns) for s in (path.stat() for path in self._files))
        except OSError:
            return ()


def common_name(certificate: dict[str, Any] | None) -> str:
    """Of a client whose certificate the handshake verified, as `ssl` gives it; empty for none."""
    subject = (certificate or {}).get("subject", ())
    return next((str(v) for part in subject for k, v in part if k == "commonName"), "")


def _context(lan: LanConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(lan.certificate_file, lan.key_file, password="")  # asks nobody
    except OSError as error:  # ssl.SSLError is one
        raise OperatorError(
            f"cannot use the certificate {lan.certificate_file} with the key {lan.key_file}:"
            f" {error}",
            hint="serving.lan.certificate and key name PEM files that belong together",
        ) from None
    if lan.client_ca:
        context.verify_mode = ssl.CERT_OPTIONAL if lan.tokens else ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(lan.client_ca)
        except OSError as error:
            raise OperatorError(
                f"{lan.client_ca} is no certificate authority: {error}",
                hint="serving.lan.client_ca names a PEM file",
            ) from None
    return context
