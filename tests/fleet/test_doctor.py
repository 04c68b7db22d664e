"""The doctor: each fault is made for real, found, and said with what to do about it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefleet_contract.bundle import Digest
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.reasons import Reason
from edgefleet_contract.topics import Channel, topic
from edgefleet_fleet import doctor, doctor_facts
from edgefleet_fleet.adapters.file_shelf import FileShelf
from edgefleet_fleet.adapters.sql.store import Store, sqlite_url
from edgefleet_fleet.api import create_app
from edgefleet_fleet.authority import Authority
from edgefleet_fleet.config import Tls
from edgefleet_fleet.doctor import DeskFacts, Facts, Finding, Status
from edgefleet_fleet.services import Services
from edgefleet_fleet.tls import ServerTls
from tests.contract.makers import write_bundle
from tests.fleet import inside
from tests.fleet.device import Device
from tests.fleet.running import Fleet, free_port, until
from tests.fleet.stage import FLEET, TOKEN, Clock, Outbox, Stage, receive
from tests.fleet.web import serving

DAY = 86400


def found(services: Services) -> dict[str, Finding]:
    return {finding.name: finding for finding in doctor_facts.look(services)}


def bad(services: Services) -> set[str]:
    """What is not well; the room on the disk of this machine is not ours to judge."""
    looked = found(services).values()
    return {f.name for f in looked if f.status is not Status.OK and f.name != "disk"}


@pytest.fixture
def clock() -> Clock:
    """Certificates are made by the machine's clock."""
    import time

    made = Clock()
    made.now = int(time.time())
    return made


@pytest.fixture
def well(stage: Stage) -> Services:
    """A room in which all is well: a device, a bundle, a rollout that went through."""
    stage.devices("a")
    stage.roll_out(1)
    stage.commit("a")
    stage.services.publications.tell_all()
    return stage.services


def test_a_room_that_is_well_has_nothing_to_do(well: Services) -> None:
    assert bad(well) == set()
    looked = found(well)
    assert not any(finding.do for finding in looked.values() if finding.status is Status.OK)
    assert looked["blobs"].found == "6 of 6 blobs of complete bundles looked at, all there"
    assert looked["retained"].found == "the broker keeps 1 orders, the newest"


def test_every_kind_of_fault_has_a_word_of_advice() -> None:
    faulty = Facts(
        1000 * DAY,
        revision="1",
        newest_revision="2",
        shelf_error="cannot write the shelf: Read-only file system",
        blobs=doctor.Blobs(2, 3, ("digits-1: v/model.onnx",)),
        incomplete=("digits-2",),
        disks=(doctor.Disk("/data", 1, 2),),
        retained=doctor.Retained(2, absent=("a",), other=("b",)),
        director_listed=False,
        repository_named=False,
        open_secrets=("director.pem",),
        documents=dict.fromkeys(("root", "targets", "snapshot", "timestamp"), 999 * DAY),
        certificates={"broker": 999 * DAY, "authority": 1001 * DAY},
        orders={"a": 999 * DAY},
        silent=("b",),
        paused=("digits-1-r1",),
        webhooks={"chat": "503"},
    )
    for facts in (
        faulty,
        dataclasses.replace(faulty, is_connected=False),
        dataclasses.replace(faulty, has_root=False),
        Facts(0, database_error="disk I/O error"),
    ):
        findings = [f for f in doctor.judge(facts) if f.status is not Status.OK]
        assert findings
        assert all(finding.do and finding.found for finding in findings)
        assert doctor.exit_code(tuple(findings)) == 1
    assert not [
        f
        for f in doctor.judge(faulty)
        if f.status is Status.OK and f.name not in ("database", "broker")
    ]


def test_names_are_few_however_many_there_are() -> None:
    silent = tuple(f"pi-{n}" for n in range(1000))
    finding = next(f for f in doctor.judge(Facts(0, silent=silent)) if f.name == "devices")
    assert finding.found == "not heard of for 7 days: pi-0, pi-1, pi-2, pi-3, pi-4 and 995 more"


def test_a_blob_that_was_removed_or_cut_off_is_named(well: Services) -> None:
    with well.room.store.begin() as tx:
        (bundle,) = tx.bundles.list()
        file = tx.bundles.files(bundle.digest)[0]
    assert isinstance(well.room.shelf, FileShelf)
    path = well.room.shelf.path(Digest(file.sha256))
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(content[:-1])
    assert bad(well) == {"blobs"}
    path.unlink()
    assert f"digits-1: {file.path}" in found(well)["blobs"].found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = shutil.which("mount") or "mount"
    command = [mount, "-t", "tmpfs", "-o", "size=2m", "none", str(where)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk here")
    yield where
    subprocess.run([shutil.which("umount") or "umount", str(where)], check=True)


def test_a_full_disk_is_found_by_writing(well: Services, small_disk: Path) -> None:
    room = well.room
    shelf = FileShelf(small_disk / "blobs")
    shelf.prepare()
    store = Store(sqlite_url(small_disk / "fleet.db"))
    store.migrate()
    old_store, room.store, room.shelf = room.store, store, shelf
    try:
        assert found(well)["shelf"].status is Status.OK
        filling = os.open(small_disk / "filling", os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(filling, bytes(4096))
        os.close(filling)
        looked = found(well)
        assert list(looked) == ["database"]
        assert "full" in looked["database"].found
        room.store = old_store
        assert "No space left on device" in found(well)["shelf"].found
    finally:
        room.store = old_store
        store.close()


def test_a_schema_of_an_older_release_is_found(well: Services, tmp_path: Path) -> None:
    store = Store(sqlite_url(tmp_path / "old.db"))
    store.migrate("0009")
    try:
        assert store.revision() != store.newest_revision()
    finally:
        store.close()
    assert well.room.store.revision() == well.room.store.newest_revision()


@pytest.mark.parametrize(
    ("days", "wanted"),
    [
        (1.6, {"document.timestamp"}),
        (2.5, {"document.timestamp"}),
        (6.5, {"document.timestamp", "document.snapshot", "orders"}),
        (80, {"document.timestamp", "document.snapshot", "document.targets", "orders", "devices"}),
    ],
)
def test_what_runs_out_is_said_before_and_after(
    well: Services, clock: Clock, days: float, wanted: set[str]
) -> None:
    clock.now += int(days * DAY)
    assert bad(well) == wanted
    if days > 80:
        assert found(well)["document.targets"].status is Status.WARN


def test_certificates_run_out_as_well(well: Services, clock: Clock) -> None:
    clock.now += 800 * DAY
    named = {name for name in bad(well) if name.startswith("certificate.")}
    assert named == {f"certificate.{n}" for n in ("broker", "service", "observer", "requester")}
    clock.now += 30 * DAY
    assert found(well)["certificate.broker"].status is Status.FAIL


def test_a_shelf_and_a_certificate_that_are_gone_are_found(well: Services) -> None:
    shutil.rmtree(well.room.keys.blobs)
    (well.room.keys.keys / "broker.crt").unlink()
    assert bad(well) == {"shelf", "blobs", "certificate.broker"}
    assert "cannot be read" in found(well)["certificate.broker"].found


def test_a_key_that_is_not_listed_or_can_be_read_by_others_is_found(well: Services) -> None:
    room = well.room
    room.director = PrivateKey.generate_ed25519()
    (room.keys.keys / "director.pem").chmod(0o644)
    assert bad(well) == {"director", "secrets"}
    assert "director.pem" in found(well)["secrets"].found


def test_an_order_that_the_broker_lost_is_found(well: Services) -> None:
    link = well.room.link
    assert isinstance(link, Outbox)
    where = topic(FLEET, "a", Channel.DESIRED)
    link.retained[where] = b"an older one"
    assert bad(well) == {"retained"}
    del link.retained[where]
    assert "for a" in found(well)["retained"].found
    link.is_connected = False
    assert bad(well) == {"broker"}


def test_a_paused_rollout_and_a_bundle_that_never_came_are_found(
    well: Services, stage: Stage, clock: Clock, tmp_path: Path, publisher: PrivateKey
) -> None:
    rollout = stage.roll_out(2, max_failures=1)
    stage.fail("a", Reason.GOLDEN_MISMATCH)
    assert stage.state(rollout) == "paused"
    receive(well, write_bundle(tmp_path / "half", publisher, version=3, content=b"other"))
    clock.now += 2 * 3600
    assert bad(well) == {"rollouts", "bundles"}
    assert found(well)["bundles"].found == "not complete: digits-3"


def seen(url: str, token: str, *more: str, **environ: str) -> tuple[int, dict[str, Any]]:
    done = inside.fleet("doctor", "--json", *more, FLEET_URL=url, FLEET_TOKEN=token, **environ)
    return done.returncode, {f["name"]: f for f in json.loads(done.stdout)["findings"]}


def test_from_the_desk_a_wrong_token_and_a_closed_port_are_told_apart(well: Services) -> None:
    with serving(create_app(well)) as web:
        code, findings = seen(web.base, TOKEN)
        assert findings["token"]["found"] == "is that of local-admin, admin"
        assert findings["clock"]["status"] == "ok"
        assert "shelf" in findings
        assert (code, findings["version"]["status"]) == (0, "ok")
        code, findings = seen(web.base, "wrong")
        assert (code, findings["token"]["status"]) == (1, "fail")
        assert "shelf" not in findings
    code, findings = seen(f"http://127.0.0.1:{free_port()}", TOKEN)
    assert (code, list(findings), findings["url"]["status"]) == (1, ["url"], "fail")


def test_from_the_desk_another_authority_is_found_before_the_token_is_said(
    well: Services, tmp_path: Path, clock: Clock
) -> None:
    from datetime import UTC, datetime

    room = well.room
    room.config = dataclasses.replace(room.config, tls=Tls.OWN)
    room.base_url = "https://fleet.example:8080"
    stranger = tmp_path / "stranger.pem"
    stranger.write_text(Authority.create("other", now=datetime.now(UTC)).pem)
    with serving(create_app(well), ServerTls.of(room)) as web:
        code, findings = seen(web.base, TOKEN, FLEET_CA=str(stranger))
        assert (code, findings["tls"]["status"]) == (1, "fail")
        assert "token" not in findings
        assert "FLEET_CA" in findings["tls"]["do"]
        code, findings = seen(web.base, TOKEN, FLEET_CA=str(room.keys.keys / "ca.pem"))
        assert (findings["tls"]["status"], findings["certificate.https"]["status"]) == ("ok", "ok")


@pytest.mark.parametrize(("skew", "status"), [(0.6, "ok"), (-30, "warn"), (400, "fail")])
def test_a_clock_that_is_off_is_said_with_which_way(skew: float, status: str) -> None:
    facts = DeskFacts("https://x", False, who="a", role="admin", skew_s=skew)
    finding = next(f for f in doctor.judge_desk(facts) if f.name == "clock")
    assert finding.status == status
    assert status == "ok" or ("ahead of" if skew > 0 else "behind") in finding.found


@pytest.mark.system
def test_with_a_real_broker_it_reads_what_is_kept_and_notices_when_none_answers(
    fleet: Fleet, device: Device, publisher: PrivateKey, tmp_path: Path
) -> None:
    fleet.push(write_bundle(tmp_path, publisher), to=device.meant)
    device.commit(device.next_order())
    until(lambda: fleet.client.get("/rollouts")["rollouts"][0]["state"] == "completed")
    done = fleet.run("doctor")
    assert done.returncode == 0, done.stdout
    assert "the broker keeps 1 orders, the newest" in done.stdout
    pid = fleet.broker_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        done = fleet.run("doctor", "--json")
    finally:
        os.kill(pid, signal.SIGCONT)
    findings = {f["name"]: f for f in json.loads(done.stdout)["findings"]}
    assert done.returncode == 1
    assert findings["retained"]["found"] == "the broker does not say: no answer in 3 s"
    assert fleet.run("doctor").returncode == 0, "and it is well again"


def test_without_a_token_it_still_says_what_can_be_seen(well: Services, tmp_path: Path) -> None:
    with serving(create_app(well)) as web:
        done = inside.fleet("doctor", "--data", tmp_path / "none", FLEET_URL=web.base)
    assert done.returncode == 1
    assert "a control room answers" in done.stdout
    assert "FAIL  token" in done.stdout
