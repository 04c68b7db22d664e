"""A data base of every released schema, with rows in it, brought up to date: nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import sqlalchemy as sa
from alembic.config import Config as AlembicConfig
from alembic.script import ScriptDirectory

from edgefleet_fleet import rollout_events as r
from edgefleet_fleet.adapters.sql.store import Store, sqlite_url
from edgefleet_fleet.desired import runs
from edgefleet_fleet.rollout_states import State
from edgefleet_fleet.roster import Outcome
from edgefleet_fleet.rounds import drive
from tests.fleet import old_rows
from tests.fleet.device import PI5
from tests.fleet.old_rows import BUNDLE, DEVICE, EVENT, ORDER, REPORTED, ROLLOUT, SAMPLE, TARGET

_ENDED: Final = {"publisher_key": "0002"}
"""Tables that were given up: publishers are named by metadata since."""


def revisions() -> list[str]:
    """All of them, the oldest first."""
    config = AlembicConfig()
    config.set_main_option("script_location", "edgefleet_fleet:migrations")
    return [found.revision for found in ScriptDirectory.from_config(config).walk_revisions()][::-1]


@pytest.fixture(params=revisions())
def revision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store on a data base without any table."""
    if request.param == "sqlite":
        url = sqlite_url(tmp_path / "fleet.db")
    else:
        url = request.getfixturevalue("cluster").new_database()
    found = Store(url)
    yield found
    found.close()


def test_a_fleet_of_every_release_is_there_after_the_upgrade(empty: Store, revision: str) -> None:
    empty.migrate(revision)
    before = old_rows.fill(empty.engine)
    empty.migrate()
    after = rows(empty.engine)
    for table, row in before.items():
        if table in _ENDED:
            assert table not in after
            continue
        (found,) = after[table]
        kept = {name: value for name, value in row.items() if name in found}
        assert kept == {name: found[name] for name in kept}, table
    speaks_of_it_all(empty)


def rows(engine: sa.Engine) -> dict[str, list[dict[str, Any]]]:
    schema = sa.MetaData()
    schema.reflect(engine)
    with engine.connect() as connection:
        return {
            table.name: [dict(row._mapping) for row in connection.execute(sa.select(table))]
            for table in schema.sorted_tables
        }


def speaks_of_it_all(store: Store) -> None:
    """What the code of today reads is what was there, and the rollout can be gone on with."""
    with store.begin() as tx:
        device = tx.devices.get(DEVICE)
        assert device is not None
        assert (device.last_seq, device.reported) == (7, REPORTED)
        assert runs(REPORTED, TARGET)
        assert tx.certificates.newest(DEVICE) is not None
        claim = tx.claims.get(4)
        assert claim is not None
        assert claim.uses_left == 3
        bundle = tx.bundles.get(BUNDLE)
        assert bundle is not None
        assert (bundle.complete, bundle.in_clear) == (True, True)
        order = tx.orders.newest(DEVICE)
        assert order is not None
        assert (order.seq, order.targets, order.asks) == (ORDER.seq, (TARGET,), (ROLLOUT,))
        assert tx.history.events(DEVICE) == (EVENT,)
        assert tx.history.model(DEVICE, "digits", limit=9) == (SAMPLE,)
        assert [row.subject for row in tx.ledger.audit()] == [ROLLOUT]
        old = tx.rollouts.machine(ROLLOUT)
        assert (old.state, old.tally.by_outcome()[Outcome.GOOD]) == (State.COMPLETED, 1)
        tx.devices.enrol("press-9", key_id="k", serial="9", expires=9, at=9, capabilities=PI5)
        joined, commands = drive(
            *(old, tx.rollouts.roster(ROLLOUT, at=9), r.Joined("press-9", "rpi5")),
            now=9,
            enlist=lambda: r.Enlisted({}),
        )
        assert commands == (r.Ask("press-9"),)
        assert joined.state is State.COMPLETED
