"""Filters of rollouts that an older release wrote mean the same devices after the migration."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from edgefleet_fleet.adapters.sql.store import Store, sqlite_url
from edgefleet_fleet.filter_parser import parse_filter
from edgefleet_fleet.traits import Traits

OLD = {
    "all": Traits("x"),
    "hw=arm64,model=digits@2|digits@3": Traits("x", hw="arm64", models=frozenset({"digits@3"})),
    "board=Raspberry Pi 5 (8GB)": Traits("x", board="Raspberry Pi 5 (8GB)"),
    'board=salt and "pepper"': Traits("x", board='salt and "pepper"'),
    "id=and|or": Traits("or"),
}


@pytest.mark.parametrize("old", OLD)
def test_an_old_filter_means_the_same(old: str) -> None:
    module = importlib.import_module(
        "edgefleet_fleet.migrations.versions.0009_tags_groups_commands"
    )
    found = parse_filter(module._written(old))
    assert found.matches(OLD[old])
    assert found.matches(Traits("y")) is (old == "all")


def test_the_migration_rewrites_what_is_stored(tmp_path: Path) -> None:
    store = Store(sqlite_url(tmp_path / "fleet.db"))
    config = Config()
    config.set_main_option("script_location", "edgefleet_fleet:migrations")
    with store.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        columns = "id, number, created_at, created_by, slot, target, 'to', salt, waves, canaries"
        columns += ", policy, allow_downgrade, state, wave, excused"
        columns = columns.replace("'to'", '"to"')
        values = "'r', 1, 1, 'me', 's', '{}', 'hw=b|a,board=Pi (8)', '', '[]', '[]', '{}', 0"
        statement = f"INSERT INTO rollout ({columns}) VALUES ({values}, 'running', 0, 0)"
        connection.execute(sa.text(statement))
        connection.commit()
        command.upgrade(config, "0009")
        connection.commit()
        found = connection.execute(sa.text('SELECT "to" FROM rollout')).scalar()
    store.close()
    assert found == 'hw=a|b and board="Pi (8)"'
