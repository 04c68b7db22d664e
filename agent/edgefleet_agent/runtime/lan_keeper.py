"""What the network's port needs before it opens, and while it is open: a certificate that is good.

The agent makes and renews it; the front sees the file change and shows the new one from the next
connection on.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final

from edgefleet_agent.adapters.lan_certificate import ensure_certificate, read_certificate
from edgefleet_agent.serving.lan import LanConfig
from edgefleet_agent.serving.lan_tls import LanTls
from edgefleet_contract.errors import OperatorError

_log = logging.getLogger(__name__)

CHECK_S: Final = 3600.0


def prepare_lan(lan: LanConfig) -> None:
    """Make the certificate, if it is ours to make, and see that it can be used.

    Raises:
        OperatorError: a file cannot be written or used; the hint says what to do.
    """
    ensure_certificate(lan, datetime.now(UTC))
    LanTls(lan)
    if lan.is_own:
        _log.info("network: the key is %s", read_certificate(lan.certificate_file).fingerprint)


async def keep_certificate(lan: LanConfig) -> None:
    """Renew it in time, for as long as this runs. A disk that is full is tried again."""
    while True:
        await asyncio.sleep(CHECK_S)
        try:
            if await asyncio.to_thread(ensure_certificate, lan, datetime.now(UTC)):
                _log.info("network: the certificate was made anew, with the same key")
        except OperatorError as error:
            _log.error("network: %s", error)
