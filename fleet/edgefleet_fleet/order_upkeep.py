"""The orders that stand: published again, signed anew before they run out, or by another key."""

from __future__ import annotations

import logging
from typing import Final

from edgefleet_contract.keys import PublicKey
from edgefleet_fleet.orders import DAY_S, Orders
from edgefleet_fleet.publications import Publications
from edgefleet_fleet.records import OrderRow
from edgefleet_fleet.work import Actor, Room, Work

log = logging.getLogger("edgefleet.rollout")

_RENEW_S: Final = 2 * DAY_S


class OrderUpkeep:
    """Keeps the newest order of each device good; its level stays what it is."""

    def __init__(self, room: Room, publications: Publications, orders: Orders) -> None:
        self._room = room
        self._publications = publications
        self._orders = orders

    def publish_all(self) -> None:
        """Put every device's newest order on the broker, again; those that run out anew."""
        self.renew()
        with self._room.work() as work:
            orders = _newest(work)
            work.orders.extend(orders)
        log.info("published %d orders", len(orders))

    def prepare_director(self, *, actor: Actor) -> PublicKey:
        """Make the next director key; `follow_policy` takes it up once a publisher lists it."""
        with self._room.work(actor) as work:
            key = self._room.make_next_director()
            work.record("trust.director", key.id, "prepared")
        return key

    def follow_policy(self) -> None:
        """Sign with a director key that the policy lists, and all orders again if it changed."""
        with self._room.work() as work:
            ring = self._publications.policy(work.tx).directors
            if not self._room.take_director(frozenset(ring)):
                return
            work.record("trust.director", self._room.director.public.id, "in use")
            self._orders.settle(work, {order.device for order in _newest(work)}, again=True)

    def renew(self) -> None:
        """Sign those orders again that run out soon; the level stays what it is."""
        with self._room.work() as work:
            newest = _newest(work)
            due = {order.device for order in newest if order.expires - work.now < _RENEW_S}
            self._orders.settle(work, due, again=True)


def _newest(work: Work) -> list[OrderRow]:
    devices = {device.id for device in work.tx.devices.list()}
    return [order for order in work.tx.orders.all_newest() if order.device in devices]
