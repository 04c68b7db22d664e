"""Two control rooms on one data base, with locks and connections of their own."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edgefleet_fleet.adapters.sql.store import Store, sqlite_url
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.services import services_of
from edgefleet_fleet.work import Room
from tests.fleet.stage import FLEET, Clock, Outbox, Stage


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return sqlite_url(DataDir(tmp_path / "data").database)
    url: str = request.getfixturevalue("cluster").new_database()
    return url


def test_two_processes_ask_nobody_twice_and_keep_the_pace(
    stage: Stage, clock: Clock, store_url: str
) -> None:
    names = [f"d{number}" for number in range(12)]
    stage.devices(*names)
    rollout = stage.roll_out(1, pace={"per_minute": 6})
    room = stage.services.room
    stores = [Store(store_url), Store(store_url)]
    rooms = [second(room, store) for store in stores]
    parts = [services_of(other, stage.services.publications) for other in rooms]
    for count in range(2, 13):
        clock.now += 10
        threads = [threading.Thread(target=part.deployments.tick) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stage.view(rollout)["counts"]["asked"] == count
    for store in stores:
        store.close()
    with room.store.begin() as tx:
        orders = [order.seq for order in tx.orders.all_newest()]
    assert orders == [1] * 12


def second(room: Room, store: Store) -> Room:
    """A room as another process would have it."""
    return Room(
        fleet=FLEET,
        config=room.config,
        store=store,
        shelf=room.shelf,
        authority=room.authority,
        director=room.director,
        keys=room.keys,
        base_url=room.base_url,
        mqtt_host=room.mqtt_host,
        mqtt_port=room.mqtt_port,
        link=Outbox(),
        clock=room.clock,
    )
