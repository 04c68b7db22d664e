"""What the fleet hears of this device: events of installs, and the full reported state."""

from __future__ import annotations

import itertools
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from edgefleet_contract import __version__, messages
from edgefleet_contract.capabilities import Capabilities
from edgefleet_contract.orders import Order
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.reported import Event, Reported
from edgefleet_contract.topics import Channel

if TYPE_CHECKING:  # the installer reports through this module
    from edgefleet_agent.installer import Installer


RECENT: Final = 16
"""So many events are told again on a new link; an install has eight, and what its progress adds."""


class Link(Protocol):
    """Where messages go."""

    def publish(self, channel: Channel, payload: bytes, *, retain: bool = False) -> object:
        """Send on one of this device's channels."""
        ...


class FleetReporter:
    """`ports.Reporter` over a link. `attach` comes before the first call."""

    def __init__(self, *, device: str, boot_id: str, capabilities: Capabilities) -> None:
        self._device, self._boot_id, self._capabilities = device, boot_id, capabilities
        self._numbers = itertools.count(1)
        self._installer: Installer | None = None
        self._link: Link | None = None
        self._recent: deque[bytes] = deque(maxlen=RECENT)

    def attach(self, installer: Installer, link: Link) -> None:
        """Say whose state is reported, and where to."""
        self._installer, self._link = installer, link

    def step(
        self,
        order: Order | None,
        phase: Phase,
        reason: Reason | None,
        detail: str,
        measurements: dict[str, float],
    ) -> None:
        """See `ports.Reporter`."""
        targets = order.targets if order else ()
        event = Event(
            device=self._device,
            boot_id=self._boot_id,
            seq=next(self._numbers),
            ts=int(time.time()),
            order_seq=order.seq if order else 0,
            rollout=order.rollout if order else "",
            phase=phase,
            models=tuple(f"{target.model}@{target.version}" for target in targets),
            reason=reason,
            detail=detail,
            measurements=measurements or None,
        )
        self._recent.append(messages.render(event))
        self._send(Channel.EVENT, self._recent[-1])
        self.state()

    def greet(self) -> None:
        """The link is up. [wire-3.10]"""
        for payload in self._recent:
            self._send(Channel.EVENT, payload)
        self.state()

    def state(self) -> None:
        """See `ports.Reporter`."""
        if self._installer is None:
            return
        device = self._installer.device
        install = device.install
        reported = Reported(
            device=self._device,
            boot_id=self._boot_id,
            ts=int(time.time()),
            agent=__version__,
            order_seq=device.seq,
            rollout=install.order.rollout if install else "",
            phase=device.phase,
            models=self._installer.running,
            capabilities=self._capabilities,
            reason=install.reason if install else None,
            detail=install.detail if install else "",
            quarantined=device.quarantined,
        )
        self._send(Channel.REPORTED, messages.render(reported), retain=True)

    def _send(self, channel: Channel, payload: bytes, *, retain: bool = False) -> None:
        if self._link is not None:
            self._link.publish(channel, payload, retain=retain)
