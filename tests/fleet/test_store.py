"""The store: the same stories on SQLite and on PostgreSQL."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from edgefleet_contract import codec
from edgefleet_contract.bundle import Digest, parse_manifest, sha256
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.order_policy import Policy
from edgefleet_contract.orders import Target
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.reported import Presence
from edgefleet_fleet import rollout_events as r
from edgefleet_fleet.adapters.sql.store import Store, Transaction, sqlite_url
from edgefleet_fleet.adapters.sql.tables import metadata
from edgefleet_fleet.adapters.sql.tables import rollout as rollouts
from edgefleet_fleet.cohort import Wave
from edgefleet_fleet.gates import GatePolicy
from edgefleet_fleet.happenings import Happening, HistoryKind
from edgefleet_fleet.model_gates import Evidence
from edgefleet_fleet.pace import Pace
from edgefleet_fleet.records import AuditRow, OrderRow, RolloutRow
from edgefleet_fleet.rollout import Rollout
from edgefleet_fleet.rollout_plan import Plan
from edgefleet_fleet.rollout_states import Ending, State, WaveState
from edgefleet_fleet.roster import Member, MemoryRoster, Outcome, Tally
from edgefleet_fleet.rounds import drive
from tests.contract.makers import order_of, target_of, write_bundle
from tests.fleet.device import PI5, event_of, model_sample, reported_of, system_sample

TARGET = Target("digits", "digits", 1, Digest("aa" * 32), Digest("bb" * 32), 100)


def enrol(store: Store, *names: str) -> None:
    with store.begin() as tx:
        for name in names:
            tx.devices.enrol(name, key_id="k", serial="1", expires=9, at=1, capabilities=PI5)


PLAN = Plan(
    "salt",
    waves=(Wave(50), Wave(100)),
    canaries=("a",),
    gate=GatePolicy(max_failures=2),
    pace=Pace(per_minute=600),
)


def rollout_row(number: int = 1, **more: object) -> RolloutRow:
    fields: dict[str, object] = {
        "id": f"digits-1-r{number}",
        "number": number,
        "created_at": 5,
        "created_by": "tester",
        "target": TARGET,
        "to": "all",
        "policy": Policy(probation_s=7),
        "allow_downgrade": True,
        "plan": PLAN,
        "state": State.DRAFT,
        "cause": None,
        "why": "",
        "wave": 0,
        "ended_at": None,
        **more,
    }
    return RolloutRow(**fields)  # type: ignore[arg-type]


def say(tx: Transaction, event: r.Event, *devices: str, at: int = 5) -> Rollout:
    """Step the first rollout as it is kept, and keep it."""
    old = tx.rollouts.machine("digits-1-r1")
    roster = tx.rollouts.roster("digits-1-r1", at=at)
    found = r.Enlisted(dict.fromkeys(devices, "Pi 5"))
    new, _ = drive(old, roster, event, now=at, enlist=lambda: found)
    tx.rollouts.keep("digits-1-r1", old, new, at=at)
    return new


def test_the_migrations_make_exactly_the_tables_that_the_code_knows(store: Store) -> None:
    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_the_revisions_of_the_schema_are_one_line() -> None:
    config = AlembicConfig()
    config.set_main_option("script_location", "edgefleet_fleet:migrations")
    assert len(ScriptDirectory.from_config(config).get_heads()) == 1


def test_migrating_twice_changes_nothing(store: Store) -> None:
    enrol(store, "a")
    store.migrate()
    with store.begin() as tx:
        assert tx.devices.get("a") is not None


def test_a_data_base_of_a_newer_release_is_left_alone(store: Store) -> None:
    with store.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(OperatorError, match="cannot be brought up to date"):
        store.migrate()


def test_what_raises_is_not_kept(store: Store) -> None:
    def fail() -> None:
        with store.begin() as tx:
            tx.ledger.set_setting("fleet", "demo")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with store.begin() as tx:
        assert tx.ledger.setting("fleet") is None


def test_a_device_keeps_its_row_and_its_numbers_when_it_is_forgotten(store: Store) -> None:
    enrol(store, "a")
    with store.begin() as tx:
        tx.devices.set_last_seq("a", 7)
        tx.devices.set_reported(reported_of("a", order_of(seq=7), Phase.COMMITTED, ()))
        tx.devices.forget("a")
        assert tx.devices.list() == ()
        found = tx.devices.get("a")
    assert found is not None
    assert (found.is_forgotten, found.last_seq, found.reported) == (True, 7, None)


def test_presence_and_state_read_back_as_they_were_said(store: Store) -> None:
    enrol(store, "a")
    reported = reported_of("a", order_of(seq=3), Phase.FAILED, (), Reason.NO_SPACE)
    with store.begin() as tx:
        tx.devices.set_presence(Presence("a", "boot-1", True, "0.1.0", 1))
        tx.devices.set_reported(reported)
        found = tx.devices.get("a")
    assert found is not None
    assert (found.online, found.boot_id, found.reported) == (True, "boot-1", reported)


def test_a_claim_is_counted_down_and_never_below_nothing(store: Store) -> None:
    with store.begin() as tx:
        number = tx.claims.add(
            secret_sha256="h", at=1, by="me", expires=9, uses=2, trust=Digest("aa" * 32)
        )
        assert [tx.claims.use(number) for _ in range(3)] == [True, True, False]
        assert tx.claims.revoke(number)
        assert not tx.claims.revoke(number + 1)
        found = tx.claims.find("h")
    assert found is not None
    assert (found.uses_left, found.revoked) == (0, True)


def test_two_who_use_the_last_of_a_claim_at_once_do_not_both_get_it(store: Store) -> None:
    with store.begin() as tx:
        number = tx.claims.add(
            secret_sha256="h", at=1, by="me", expires=9, uses=1, trust=Digest("aa" * 32)
        )
    barrier, got = threading.Barrier(4), []

    def use() -> None:
        barrier.wait()
        with store.begin() as tx:
            got.append(tx.claims.use(number))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False, False, False, True]


def test_an_event_that_is_delivered_twice_is_kept_once(store: Store) -> None:
    enrol(store, "a")
    event = event_of("a", order_of(), Phase.VERIFIED, seq=4)
    with store.begin() as tx:
        assert tx.history.add_event(event, at=1)
        assert not tx.history.add_event(event, at=2)
        assert tx.history.events("a") == (event,)


def test_of_telemetry_only_the_newest_samples_stay(store: Store) -> None:
    enrol(store, "a", "b")
    with store.begin() as tx:
        for ts in range(1, 11):
            tx.history.add_telemetry(system_sample("a", ts), keep=3)
            tx.history.add_telemetry(model_sample("a", ts=ts), keep=2)
        tx.history.add_telemetry(system_sample("b", 99), keep=3)
        assert [sample.ts for sample in tx.history.system("a", limit=99)] == [8, 9, 10]
        assert [sample.ts for sample in tx.history.model("a", "digits", limit=99)] == [9, 10]
        latest = tx.history.latest_system()
        assert {name: sample.ts for name, sample in latest.items()} == {"a": 10, "b": 99}
        assert list(tx.history.latest_models()) == [("a", "digits")]


def test_a_rollout_and_its_machine_read_back_as_they_were_kept(store: Store) -> None:
    enrol(store, "a", "b")
    with store.begin() as tx:
        tx.rollouts.add(rollout_row(), Rollout(PLAN))
        assert tx.rollouts.get("digits-1-r1") == rollout_row()
        assert tx.rollouts.machine("digits-1-r1") == Rollout(PLAN)
    events: list[r.Event] = [
        r.Submitted(),
        r.Ended("b", Outcome.UNDELIVERED, may_retry=True),
        r.Answered("a", Outcome.ACTIVE),
        r.Observed("Pi 5", Evidence(requests=3, failures=1, outputs=(1, 2))),
        r.Ended("a", Outcome.BAD, failed_selftest=True),
        r.Resumed(),
        r.Aborted(Ending.REVERT),
    ]
    for at, event in enumerate(events, start=6):
        with store.begin() as tx:
            new = say(tx, event, "a", "b", at=at)
        with store.begin() as tx:
            assert tx.rollouts.machine("digits-1-r1") == new
            found = tx.rollouts.get("digits-1-r1")
            assert found is not None
            assert (found.state, found.wave, found.why) == (new.state, new.wave, new.why)
            members = [tx.rollouts.roster("digits-1-r1", at=at).get(name) for name in ("a", "b")]
            assert Tally().moved((None, member) for member in members) == new.tally
    assert new.state is State.ABORTED


def test_the_store_finds_the_same_devices_as_a_roster_in_memory(store: Store) -> None:
    names = [f"d{number}" for number in range(12)]
    enrol(store, *names)
    outcomes = [Outcome.PENDING, Outcome.ASKED, Outcome.RETRYING, Outcome.ACTIVE, Outcome.GOOD]
    members = {
        name: Member(
            *(number % 2, -number % 7, f"Pi {number % 3}", outcomes[number % 5], number, number),
            tries=number % 3,
            retry_at=-number % 4,
        )
        for number, name in enumerate(names)
    }
    memory = MemoryRoster()
    memory.write(members)
    with store.begin() as tx:
        tx.rollouts.add(rollout_row(), Rollout(PLAN))
        kept = tx.rollouts.roster("digits-1-r1", at=5)
        kept.write(members)
        kept.write({"d0": members["d0"]})
        assert {name: kept.get(name) for name in names} == members
        assert kept.get("nobody") is None
        for wave, limit in ((0, 2), (1, 2), (1, 99)):
            assert kept.pending(wave, limit) == memory.pending(wave, limit)
        for kind in (None, "Pi 1"):
            wanted = (Outcome.ASKED, Outcome.GOOD)
            assert kept.having(wanted, kind=kind) == memory.having(wanted, kind=kind)
        for limit in (1, 99):
            assert kept.retrying(limit) == memory.retrying(limit)
        assert kept.asked_since(5) == memory.asked_since(5)
        for committed in (False, True):
            assert kept.silent(7, committed=committed) == memory.silent(7, committed=committed)


def test_a_plan_that_this_release_does_not_know_whole_is_not_read(store: Store) -> None:
    with store.begin() as tx:
        tx.rollouts.add(rollout_row(), Rollout(PLAN))
    with store.engine.begin() as connection:
        plan = {"salt": "x", "gate": {"a_gate_of_tomorrow": 1}}
        connection.execute(rollouts.update().values(plan=plan))
    with store.begin() as tx:
        found = tx.rollouts.get("digits-1-r1")
        assert found is not None
        assert found.plan is None
        with pytest.raises(Malformed, match="a_gate_of_tomorrow"):
            tx.rollouts.machine("digits-1-r1")


def test_what_a_bundle_is_not_for_is_remembered_once(store: Store) -> None:
    bundle = Digest("aa" * 32)
    with store.begin() as tx:
        for at in (1, 2):
            tx.rollouts.block(bundle, "Pi 3", "r1", at=at)
        assert tx.rollouts.blocked(bundle) == ("Pi 3",)
        tx.rollouts.unblock(bundle)
        assert tx.rollouts.blocked(bundle) == ()


def test_what_the_release_before_kept_of_a_rollout_is_carried_over(store: Store) -> None:
    enrol(store, "a", "b")
    to(store, "0007")
    with store.engine.begin() as connection:
        old = sa.MetaData()
        old.reflect(connection, only=["rollout", "rollout_device"])
        rollout, member = old.tables["rollout"], old.tables["rollout_device"]
        common = {
            "created_at": 5,
            "created_by": "ada",
            "slot": "digits",
            "to": "all",
            "salt": "salt",
            "waves": [50, 100],
            "canaries": ["a"],
            "max_failures": None,
            "policy": {},
            "allow_downgrade": False,
            "cause": "gate",
            "excused": 0,
        }
        values = {"id": "digits-1-r1", "number": 1, "state": "paused", "wave": 0, **common}
        connection.execute(rollout.insert().values(target=codec.encode(TARGET), **values))
        for device, wave, outcome in (("a", 0, "bad"), ("b", 2, "pending")):
            row = {"rollout": "digits-1-r1", "device": device, "wave": wave, "outcome": outcome}
            connection.execute(member.insert().values(detail="", updated_at=5, **row))
    store.migrate()
    with store.begin() as tx:
        found = tx.rollouts.machine("digits-1-r1")
        assert found.plan.wave_of("b", found.ends) in (1, 2)
        assert (found.state, found.wave_state) == (State.PAUSED, WaveState.FAILED)
        assert say(tx, r.Resumed(), at=9).wave == 2
        assert tx.rollouts.roster("digits-1-r1", at=9).having((Outcome.ASKED,)) == ("b",)
    to(store, "0007")
    store.migrate()


def test_the_release_before_the_tries_can_read_what_is_left_of_a_rollout(store: Store) -> None:
    enrol(store, "a", "b")
    with store.begin() as tx:
        tx.rollouts.add(rollout_row(), Rollout(PLAN))
        say(tx, r.Submitted(), "a", "b", at=6)
        new = say(tx, r.Ended("a", Outcome.UNDELIVERED, may_retry=True), at=7)
        tx.history.add("a", HistoryKind.LINK, Happening("online"), at=8)
    assert new.tally.by_outcome()[Outcome.RETRYING] == 1
    to(store, "0011")
    with store.engine.connect() as connection:
        row = connection.execute(sa.text("SELECT plan, progress FROM rollout")).one()
    assert "retries" not in str(row.plan)
    assert "retrying|" not in str(row.progress)
    store.migrate()
    with store.begin() as tx:
        assert tx.history.page("a", limit=9) == ()
        found = tx.rollouts.roster("digits-1-r1", at=9).get("a")
        assert found is not None
        assert found.outcome is Outcome.UNDELIVERED
        kept = tx.rollouts.machine("digits-1-r1")
        assert kept.tally.by_outcome()[Outcome.UNDELIVERED] == 1


def to(store: Store, revision: str) -> None:
    """Take the schema back."""
    config = AlembicConfig()
    config.set_main_option("script_location", "edgefleet_fleet:migrations")
    with store.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
        connection.commit()


def test_a_phase_is_noted_while_a_device_is_asked_and_not_after(store: Store) -> None:
    enrol(store, "a")
    row = rollout_row()
    with store.begin() as tx:
        tx.rollouts.add(row, Rollout(PLAN))
        say(tx, r.Submitted(), "a")
        tx.rollouts.note_phase(row.id, "a", Phase.FAILED, Reason.NO_SPACE, "full", at=6)
        say(tx, r.Ended("a", Outcome.BAD), at=7)
        tx.rollouts.note_phase(row.id, "a", Phase.COMMITTED, None, "", at=8)
        (member,) = tx.members.all(row.id)
        (asked,) = tx.rollouts.asks_of("a")
    assert (member.outcome, member.phase, member.reason) == (
        Outcome.BAD,
        Phase.FAILED,
        Reason.NO_SPACE,
    )
    assert asked.target == TARGET


def test_pages_of_rollouts_and_of_the_audit_trail_are_cut_and_filtered(store: Store) -> None:
    other = dataclasses.replace(TARGET, model="letters")
    with store.begin() as tx:
        for number in range(1, 6):
            target = other if number == 2 else TARGET
            state = State.ABORTED if number == 3 else State.RUNNING
            row = rollout_row(number, target=target, state=state, created_at=number)
            tx.rollouts.add(row, Rollout(PLAN, state))
            tx.ledger.record(AuditRow(number, f"user-{number % 2}", "rollout.begin", "", "", ""))

        def numbers(**wanted: Any) -> list[int]:
            return [row.number for row in tx.rollouts.page(limit=2, **wanted)]

        assert numbers() == [5, 4]
        assert numbers(before=4) == [3, 2]
        assert numbers(model="letters") == [2]
        assert numbers(state=State.ABORTED) == [3]
        assert numbers(since=4) == [5, 4]
        newest = tx.ledger.find(limit=9, who="user-1", since=2)
        assert [row.at for _, row in newest] == [5, 3]
        assert [row.at for _, row in tx.ledger.find(limit=1, before=newest[1][0])] == [2]
        assert tx.ledger.find(limit=9, what="user.add") == ()


def test_numbers_of_rollouts_rise(store: Store) -> None:
    with store.begin() as tx:
        assert tx.rollouts.next_number() == 1
        tx.rollouts.add(rollout_row(1), Rollout(PLAN, State.RUNNING))
        assert tx.rollouts.next_number() == 2
        tx.rollouts.add(rollout_row(2), Rollout(PLAN, State.ABORTED))
        assert [row.number for row in tx.rollouts.list()] == [2, 1]
        assert [row.number for row in tx.rollouts.in_states([State.RUNNING])] == [1]


def test_the_newest_order_of_each_device_is_found(store: Store) -> None:
    enrol(store, "a", "b")
    with store.begin() as tx:
        for device, seq in (("a", 1), ("a", 2), ("b", 5)):
            tx.orders.add(OrderRow(device, seq, 1, 2, "r", ("r",), (TARGET,), b"\x00signed"))
        newest = tx.orders.newest("a")
        tx.orders.set_asks("a", 1, ("r", "s"))
        older = tx.orders.get("a", 1)
        assert [(order.device, order.seq) for order in tx.orders.all_newest()] == [
            ("a", 2),
            ("b", 5),
        ]
    assert newest is not None
    assert (newest.seq, newest.envelope, newest.targets) == (2, b"\x00signed", (TARGET,))
    assert older is not None
    assert older.asks == ("r", "s")


def test_a_bundle_under_a_good_signature_is_preferred(store: Store, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, PrivateKey.generate_p256())
    raw = (folder / "bundle.json").read_bytes()
    manifest = parse_manifest(raw)
    good = target_of(folder)
    with store.begin() as tx:
        for at, signature, signer in ((1, good.signature_sha256, "key"), (2, "ff" * 32, "")):
            tx.bundles.add(
                manifest,
                digest=sha256(raw),
                signature_sha256=Digest(signature),
                size=manifest.total_size,
                at=at,
                by="me",
                signer=signer,
            )
        assert tx.bundles.target(sha256(raw), slot="digits") == good
        assert len(tx.bundles.find_version("digits", 1)) == 2
        assert [file.path for file in tx.bundles.files(sha256(raw))] == [
            file.path for file in manifest.files
        ]
        assert tx.bundles.wants(manifest.files[0].sha256) == manifest.files[0].size
        assert tx.bundles.wants("00" * 32) is None


def test_the_audit_trail_says_who_and_from_where(store: Store) -> None:
    row = AuditRow(5, "operator", "rollout.begin", "digits-1-r1", "3 devices", "127.0.0.1")
    with store.begin() as tx:
        tx.ledger.record(row)
        assert tx.ledger.audit() == (row,)


def test_a_document_is_kept_under_its_name_until_it_is_replaced(store: Store) -> None:
    with store.begin() as tx:
        tx.trust.put("1.root.json", b"\x00one", at=1)
        tx.trust.put("timestamp.json", b"old", at=1)
        tx.trust.put("timestamp.json", b"new", at=2)
    with store.begin() as tx:
        assert tx.trust.names() == ("1.root.json", "timestamp.json")
        assert (tx.trust.get("1.root.json"), tx.trust.get("timestamp.json")) == (b"\x00one", b"new")
        tx.trust.drop("timestamp.json")
        assert tx.trust.get("timestamp.json") is None


def test_sqlite_keeps_what_was_committed_through_a_power_cut(tmp_path: Path) -> None:
    store = Store(sqlite_url(tmp_path / "x.db"))
    with store.engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous")
        }
    store.close()
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2}


@pytest.mark.parametrize("url", ["mysql://x/y", "not an address"])
def test_a_data_base_that_is_not_known_is_refused(url: str) -> None:
    with pytest.raises(OperatorError):
        Store(url)


def test_a_data_base_that_does_not_answer_is_an_error_for_the_operator(tmp_path: Path) -> None:
    store = Store(f"postgresql://nobody@/none?host={tmp_path}")
    with pytest.raises(OperatorError, match="cannot be used"):
        store.migrate()
    store.close()
