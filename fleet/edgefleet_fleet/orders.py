"""Signs the orders of devices: what should one run now, and does its newest order say so already?

Only where it does not a new order is signed, with the next number; a number is never used twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from edgefleet_contract.bundle import Digest
from edgefleet_contract.messages import seal_order
from edgefleet_contract.orders import Order, Target
from edgefleet_contract.phases import Phase
from edgefleet_fleet import sealings, tuf_repo
from edgefleet_fleet.desired import Level, level, runs, without_sealed
from edgefleet_fleet.endings import ending_of
from edgefleet_fleet.publications import Publications
from edgefleet_fleet.records import Device, OrderRow
from edgefleet_fleet.roster import Outcome
from edgefleet_fleet.work import Room, Work

log = logging.getLogger("edgefleet.rollout")

DAY_S: Final = 24 * 3600


class Orders:
    """The orders; `ran_already` is told of a rollout and a device that runs its target, and says
    which devices are to be looked at then."""

    def __init__(
        self,
        room: Room,
        publications: Publications,
        ran_already: Callable[[Work, str, str], set[str]],
    ) -> None:
        self._room = room
        self._publications = publications
        self._ran_already = ran_already

    def settle(self, work: Work, dirty: set[str], *, again: bool = False) -> None:
        """Give every device in `dirty` the order that it should have, if it has another."""
        queue = sorted(dirty)
        while queue:
            device = work.tx.devices.get(queue.pop(0))
            if device is None or not device.is_active:
                continue
            more = self._settle_device(work, device, again=again)
            queue += sorted(more - set(queue))

    def _settle_device(self, work: Work, device: Device, *, again: bool) -> set[str]:
        wanted = self._level(work, device)
        newest = work.tx.orders.newest(device.id)
        work.changed("device", device.id)
        if newest is None and not wanted.targets:
            return set()
        if again or newest is None or newest.targets != wanted.targets:
            self._issue(work, device, wanted)
            return set()
        reported = device.reported
        if reported is None or reported.order_seq < newest.seq:  # it has not answered yet
            self._attach(work, newest, wanted.asks)
            return set()
        ended = ending_of(reported.phase, reported.reason)
        if ended is Outcome.GOOD or all(runs(reported, target) for target in newest.targets):
            self._attach(work, newest, wanted.asks)
            return self._end(work, device.id, wanted.asks)
        if ended is not None and wanted.asks:
            self._issue(work, device, wanted)
        else:
            self._attach(work, newest, wanted.asks)
        return set()

    def _end(self, work: Work, device: str, asks: tuple[str, ...]) -> set[str]:
        dirty: set[str] = set()
        for rollout in asks:
            work.tx.rollouts.note_phase(
                rollout, device, Phase.COMMITTED, None, "it ran already", at=work.now
            )
            dirty |= self._ran_already(work, rollout, device)
        return dirty

    def _attach(self, work: Work, order: OrderRow, asks: tuple[str, ...]) -> None:
        new = [rollout for rollout in asks if rollout not in order.asks]
        if new:
            work.tx.orders.set_asks(order.device, order.seq, (*order.asks, *new))
            for rollout in new:
                work.tx.rollouts.note_order(rollout, order.device, order.seq, at=work.now)

    def _level(self, work: Work, device: Device) -> Level:
        running = device.reported.models if device.reported is not None else ()
        history = work.tx.rollouts.asks_of(device.id)
        if not device.seal_key:
            history = without_sealed(history)
        known: dict[Digest, Target] = {ask.target.bundle_sha256: ask.target for ask in history}
        for model in running:
            target = work.tx.bundles.target(model.bundle_sha256, slot=model.slot)
            if target is not None:
                known.setdefault(model.bundle_sha256, sealings.draft_of(work.tx, target))
            elif model.bundle_sha256 not in known:
                log.warning("%s runs a bundle unknown here in slot %s", device.id, model.slot)
        if not device.seal_key:
            known = {digest: target for digest, target in known.items() if target.sealed is None}
        return level(history, running, known)

    def _issue(self, work: Work, device: Device, wanted: Level) -> None:
        seq = max(device.last_seq, device.reported.order_seq if device.reported else 0) + 1
        order = Order(
            fleet=self._room.fleet,
            device=device.id,
            seq=seq,
            issued=work.now,
            expires=work.now + self._room.config.order_days * DAY_S,
            rollout=wanted.rollout,
            targets=tuple(
                sealings.for_device(work.tx, target, device, fleet=self._room.fleet)
                for target in wanted.targets
            ),
            sources=(f"{self._room.base_url}/blobs",),
            metadata=(f"{self._room.base_url}/tuf",),
            metadata_min=tuf_repo.version_of(self._publications.timestamp(work.tx)),
            allow_downgrade=wanted.allow_downgrade,
            policy=wanted.policy,
        )
        row = OrderRow(
            device=device.id,
            seq=seq,
            issued=order.issued,
            expires=order.expires,
            rollout=order.rollout,
            asks=wanted.asks,
            targets=order.targets,
            envelope=seal_order(order, self._room.director),
        )
        work.tx.orders.add(row)
        work.tx.devices.set_last_seq(device.id, seq)
        for rollout in wanted.asks:
            work.tx.rollouts.note_order(rollout, device.id, seq, at=work.now)
        work.orders.append(row)
        what = ", ".join(f"{target.slot}={target.model}@{target.version}" for target in row.targets)
        log.info("order %s#%d: %s", device.id, seq, what or "nothing")
