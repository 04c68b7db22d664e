"""What a control room holds, as lines of JSON, for other programs to keep [fleet-api-14.5].

Read in pieces, each in a transaction of its own: an export of any length holds nobody up. What
changes meanwhile may be in it or not; no line is half of one moment and half of another.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from edgefleet_fleet import rollout_views, views
from edgefleet_fleet.adapters.sql.store import Store
from edgefleet_fleet.export_columns import Noun

_PIECE: Final = 500


def lines(store: Store, noun: Noun, *, since: int = 0) -> Iterator[bytes]:
    """The lines, each with its end; `since` leaves out older rows of the audit trail, rollouts
    that began earlier and older samples. The last line counts the others [fleet-api-14.6]."""
    count = 0
    for value in _VALUES[noun](store, since):
        count += 1
        yield json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    yield f'{{"end":{count}}}\n'.encode()


def _devices(store: Store, _since: int) -> Iterator[Any]:
    with store.begin() as tx:
        names = [device.id for device in tx.devices.list(revoked=True)]
    for start in range(0, len(names), _PIECE):
        with store.begin() as tx:
            known = {device.id for device in tx.devices.list(revoked=True)}
            piece = [
                views.device(tx, name, events=0)
                for name in names[start : start + _PIECE]
                if name in known
            ]
        yield from piece


def _rollouts(store: Store, since: int) -> Iterator[Any]:
    number = 0
    while True:
        with store.begin() as tx:
            piece = rollout_views.rollouts_after(tx, number, limit=_PIECE)
        if not piece:
            return
        number = piece[-1][0]
        yield from (view for _number, view in piece if view["created_at"] >= since)


def _bundles(store: Store, _since: int) -> Iterator[Any]:
    with store.begin() as tx:
        found = tx.bundles.list()
    yield from (views.bundle(bundle) for bundle in reversed(found))


def _audit(store: Store, since: int) -> Iterator[Any]:
    number = 0
    while True:
        with store.begin() as tx:
            piece = tx.ledger.after(number, limit=_PIECE)
        if not piece:
            return
        number = piece[-1][0]
        for at, row in piece:
            if row.at >= since:
                yield {"number": at} | dataclasses.asdict(row)


def _telemetry(store: Store, since: int) -> Iterator[Any]:
    number = 0
    while True:
        with store.begin() as tx:
            piece = tx.history.samples(after=number, limit=_PIECE)
        if not piece:
            return
        number = piece[-1][0]
        for _number, stream, body in piece:
            value = json.loads(body)
            if value["ts"] >= since * 1000:
                yield {"stream": stream.partition("/")[0]} | value


_VALUES: Final[Mapping[Noun, Callable[[Store, int], Iterator[Any]]]] = MappingProxyType(
    {
        Noun.DEVICES: _devices,
        Noun.ROLLOUTS: _rollouts,
        Noun.BUNDLES: _bundles,
        Noun.AUDIT: _audit,
        Noun.TELEMETRY: _telemetry,
    }
)
