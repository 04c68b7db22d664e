"""Where the fleets of a site lie, what each is configured with, and schemas of one data base."""

from __future__ import annotations

import concurrent.futures
from contextlib import closing
from pathlib import Path

import pytest

from edgefleet_contract.errors import OperatorError
from edgefleet_fleet import site_folder
from edgefleet_fleet.adapters.sql import dump
from edgefleet_fleet.adapters.sql.store import Store, in_schema, sqlite_url
from edgefleet_fleet.config import Config, Tls
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.server import open_room
from tests.fleet.postgres import Cluster


@pytest.fixture
def site(tmp_path: Path) -> DataDir:
    found = DataDir(tmp_path / "site")
    found.root.mkdir()
    found.token.write_text("secret")
    found.config.write_text('order_days = 3\nmqtt_port = 9000\nlisten = "127.0.0.1:9001"\n')
    return found


def make(site: DataDir, name: str, more: str = "") -> DataDir:
    found = site_folder.fleet_dir(site, name)
    site_folder.make(found, mqtt_port=9100)
    found.config.write_text(found.config.read_text() + more)
    return found


def test_a_fleet_has_the_sites_port_and_limits_and_stores_of_its_own(site: DataDir) -> None:
    whole = Config(
        public_host="host.example",
        tls=Tls.OWN,
        order_days=3,
        events_keep=7,
        database_url="postgresql://me:secret@db/base?sslmode=require",
        shelf="s3://bucket/edge/",
    )
    found = make(site, "acme", "events_keep = 9\nlisten = '0.0.0.0:1'\nname = 'other'\n")
    config = site_folder.config_of(found, whole, base_url="https://host.example")
    assert config.base_url(1) == "https://host.example/fleets/acme"
    assert (config.name, config.listen, config.tls) == ("acme", whole.listen, Tls.OWN)
    assert (config.order_days, config.events_keep, config.mqtt_port) == (3, 9, 9100)
    assert config.shelf == "s3://bucket/edge/fleets/acme"
    assert config.database_url == (
        "postgresql://me:secret@db/base?schema=fleet_acme&sslmode=require"
    )
    assert config.broker_host() == "host.example"


def test_the_command_line_finds_the_same_configuration(site: DataDir) -> None:
    found = make(site, "acme")
    environ = {"FLEET_DATABASE_URL": "postgresql://db/base"}
    assert site_folder.config_for(site, None, environ).mqtt_port == 9000
    config = site_folder.config_for(found, None, environ)
    assert config.database_url == "postgresql://db/base?schema=fleet_acme"
    assert config.public_url == "http://127.0.0.1:9001/fleets/acme"
    assert site_folder.config_to_restore(found, None, {}).database_url == ""
    assert site_folder.site_of(found) == DataDir(site.root.resolve())
    assert site_folder.site_of(site) is None


def test_a_sites_sqlite_file_and_broker_are_never_another_fleets(site: DataDir) -> None:
    whole = Config(database_url="sqlite:////var/lib/fleet.db")
    found = make(site, "acme")
    assert site_folder.config_of(found, whole, base_url="http://x").database_url == ""
    found.config.write_text("")
    with pytest.raises(OperatorError, match="has no broker") as refused:
        site_folder.config_of(found, whole, base_url="http://x")
    assert "mqtt_port" in refused.value.hint


@pytest.mark.parametrize("name", ["", "..", "a/b", "Acme", ".removed", "a" * 37])
def test_no_folder_elsewhere_is_a_fleet(site: DataDir, name: str) -> None:
    with pytest.raises(OperatorError, match="cannot be called"):
        site_folder.fleet_dir(site, name)


def test_a_removed_fleet_is_off_the_list_and_all_there(site: DataDir) -> None:
    assert site_folder.names(site) == ()
    acme, _ = make(site, "acme"), make(site, "beta")
    (acme.root / "fleet.db").write_text("rows")
    place = site_folder.set_aside(acme, None)
    assert site_folder.names(site) == ("beta",)
    assert (place / "fleet.db").read_text() == "rows"
    make(site, "acme")
    assert site_folder.names(site) == ("acme", "beta")


def test_schemas_of_one_data_base_are_apart(cluster: Cluster, tmp_path: Path) -> None:
    url = cluster.new_database()
    addresses = [url, *(in_schema(url, f"fleet_{name}") for name in ("a", "b.c-1"))]
    stores = [Store(address) for address in addresses]
    try:
        for number, store in enumerate(stores):
            store.migrate()
            store.migrate()
            assert store.revision()
            with store.begin(decides=True) as tx:
                assert tx.ledger.setting("fleet") is None
                tx.ledger.set_setting("fleet", str(number))
        assert [store.fleet() for store in stores] == ["0", "1", "2"]
        with stores[1].snapshot() as connection:
            rows = {name: list(lines) for name, lines in dump.dump(connection)}
        assert [b'"1"' in line for line in rows["setting"]] == [True]
        # One that decides holds up its own fleet and no other.
        with (
            stores[1].begin(decides=True),
            stores[2].begin(decides=True),
            stores[0].begin(decides=True),
            concurrent.futures.ThreadPoolExecutor(1) as threads,
        ):
            threads.submit(stores[2].fleet).result(10)
        stores[1].set_aside("fleet_a_removed")
        with closing(Store(addresses[1])) as again:
            again.migrate()
            assert again.fleet() == ""
        with closing(Store(in_schema(url, "fleet_a_removed"))) as removed:
            assert removed.fleet() == "1"
    finally:
        for store in stores:
            store.close()
    with pytest.raises(OperatorError, match="names the schema"):
        Store(in_schema(url, 'a" ; drop'))


def test_fleets_that_migrate_at_once_do_not_touch_each_others_data_bases(tmp_path: Path) -> None:
    """Alembic's scripts find their connection in the process, and not in the thread."""

    def migrate(name: str) -> str:
        with closing(Store(sqlite_url(tmp_path / f"{name}.db"))) as store:
            store.migrate()
            with store.begin() as tx:
                tx.ledger.set_setting("fleet", name)
            return store.fleet()

    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        assert list(threads.map(migrate, "abc")) == ["a", "b", "c"]


def test_a_removed_fleet_on_postgresql_leaves_its_name_free(
    cluster: Cluster, site: DataDir
) -> None:
    whole = Config(database_url=cluster.new_database())
    acme = make(site, "acme")
    config = site_folder.config_of(acme, whole, base_url="http://x")
    room = open_room(acme, config, http_port=1, prefix="/fleets/acme")
    assert (room.fleet, room.base_url) == ("acme", "http://x/fleets/acme")
    room.store.close()
    site_folder.set_aside(acme, config)
    with closing(Store(config.database_url)) as store:
        store.migrate()
        assert store.fleet() == ""
