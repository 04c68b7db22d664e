"""The fleet's deltas: made in the background, once, for files that are kin; given to anybody."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgefleet_contract.bundle import Digest, sha256
from edgefleet_contract.keys import PrivateKey
from edgefleet_fleet import deltas as module
from edgefleet_fleet.api import create_app
from edgefleet_fleet.deltas import Deltas
from edgefleet_fleet.services import Services
from tests.contract.deltas import read
from tests.contract.makers import write_bundle
from tests.fleet.stage import TOKEN, Stage, push, release
from tests.fleet.web import serving

AUTH = {"Authorization": f"Bearer {TOKEN}"}
FIRST = random.Random(1).randbytes(200_000)
SECOND = FIRST[:100_000] + b"changed" + FIRST[100_007:]
ONE, TWO = sha256(FIRST), sha256(SECOND)


@pytest.fixture
def deltas(services: Services) -> Deltas:
    return services.deltas


@pytest.fixture
def versions(services: Services, publisher: PrivateKey, tmp_path: Path) -> list[Path]:
    """Two versions of a model on the shelf, handed out in the clear."""
    folders = [
        write_bundle(tmp_path, publisher, version=number, content=content)
        for number, content in enumerate((FIRST, SECOND), 1)
    ]
    for folder in folders:
        push(services, folder)
        with services.room.store.begin() as tx:
            tx.bundles.set_in_clear(sha256((folder / "bundle.json").read_bytes()))
    return folders


def work_off(deltas: Deltas) -> None:
    asyncio.run(deltas.work_off())


def folder_of(services: Services) -> Path:
    return services.room.keys.deltas


@pytest.mark.usefixtures("versions")
def test_a_delta_that_was_asked_for_is_made_and_given(services: Services) -> None:
    with serving(create_app(services)) as http:
        url = f"/blobs/{TWO}/delta/{ONE}"
        soon = http.get(url)
        assert (soon.status_code, soon.headers["Retry-After"]) == (503, "2")
        work_off(services.deltas)
        answer = http.get(url)
        assert answer.status_code == 200
        assert read(answer.content, FIRST, TWO, len(SECOND)) == SECOND
        assert len(answer.content) < 2000
        part = http.get(url, headers={"Range": "bytes=10-"})
        assert (part.status_code, part.content) == (206, answer.content[10:])
        beyond = http.get(url, headers={"Range": f"bytes={len(answer.content)}-"})
        assert beyond.status_code == 416


def test_a_rollout_begins_the_deltas_from_what_its_devices_run(
    services: Services, stage: Stage, publisher: PrivateKey, versions: list[Path]
) -> None:
    for folder in versions:
        release(services, publisher, folder)
    stage.devices("pi-1")
    with serving(create_app(services)) as http:
        for number in (1, 2):
            bundle = http.get(f"/api/v1/bundles/digits-{number}", headers=AUTH).json()
            wish = {"bundle": bundle["digest"], "signature_sha256": bundle["signature_sha256"]}
            assert http.post("/api/v1/rollouts", headers=AUTH, json=wish).status_code == 201
            if number == 1:
                work_off(services.deltas)
                assert not folder_of(services).exists()
                stage.commit("pi-1")
        work_off(services.deltas)
        assert http.get(f"/blobs/{TWO}/delta/{ONE}").status_code == 200


def test_only_files_that_are_kin_have_deltas(
    services: Services, deltas: Deltas, publisher: PrivateKey, tmp_path: Path
) -> None:
    push(services, write_bundle(tmp_path, publisher, content=FIRST))
    push(services, write_bundle(tmp_path, publisher, model="other", content=SECOND))
    manifest = sha256((tmp_path / "digits-1" / "bundle.json").read_bytes())
    pairs = [(ONE, TWO), (ONE, ONE), (sha256(b"golden"), ONE), (manifest, ONE), (ONE, manifest)]
    for old, new in [*pairs, (Digest("0" * 64), ONE)]:
        assert deltas.find(old, new) is None
    work_off(deltas)
    assert not folder_of(services).exists()
    with serving(create_app(services)) as http:
        for name in ("nothing", "..%2f..%2foperator.token", "0" * 64):
            assert http.get(f"/blobs/{ONE}/delta/{name}").status_code == 404
            assert http.get(f"/blobs/{name}/delta/{ONE}").status_code == 404


def test_what_is_not_worth_it_is_tried_once(
    services: Services, deltas: Deltas, publisher: PrivateKey, tmp_path: Path
) -> None:
    noise = random.Random(2).randbytes(50_000)
    for number, content in enumerate((FIRST, noise), 1):
        push(services, write_bundle(tmp_path, publisher, version=number, content=content))
    assert deltas.find(ONE, sha256(noise)) is None
    work_off(deltas)
    (mark,) = folder_of(services).iterdir()
    made = mark.stat().st_mtime_ns
    assert deltas.find(ONE, sha256(noise)) is None
    work_off(deltas)
    assert (mark.stat().st_size, mark.stat().st_mtime_ns) == (0, made)


@pytest.mark.usefixtures("versions")
def test_an_encoder_that_takes_too_long_is_ended(services: Services) -> None:
    slow = Deltas(services.room, folder_of(services), deadline_s=0.001)
    assert slow.find(ONE, TWO) is None
    work_off(slow)
    assert slow.find(ONE, TWO) is None
    assert [path.stat().st_size for path in folder_of(services).iterdir()] == [0]


@pytest.mark.usefixtures("versions")
def test_a_blob_that_is_gone_ends_no_service(services: Services, deltas: Deltas) -> None:
    assert deltas.find(ONE, TWO) is None
    services.room.shelf.path(ONE).unlink()  # type: ignore[attr-defined] # the one on a disk
    work_off(deltas)
    assert deltas.find(ONE, TWO) is None


@pytest.mark.usefixtures("versions")
def test_what_another_takes_away_at_this_moment_is_not_there_and_ends_no_service(
    services: Services, deltas: Deltas, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert deltas.find(ONE, TWO) is None
    work_off(deltas)
    (path,) = folder_of(services).iterdir()
    listed, touch = Path.iterdir, os.utime

    def with_one_more(folder: Path) -> Iterator[Path]:
        yield from listed(folder)
        yield folder / f"{ONE}-{TWO}"

    def too_late(path: Path) -> None:
        path.unlink()
        touch(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", with_one_more)
        patched.setattr(Path, "is_file", lambda _: True)  # as it was when it was looked at
        deltas.tidy()
    assert deltas.find(ONE, TWO) == path
    monkeypatch.setattr(module.os, "utime", too_late)
    assert deltas.find(ONE, TWO) is None


@contextmanager
def running(deltas: Deltas) -> Iterator[None]:
    """`run`, on an event loop of its own."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(deltas.run())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def wait_for(deltas: Deltas) -> Path:
    until = time.monotonic() + 30
    while (path := deltas.find(ONE, TWO)) is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    return path


@pytest.mark.usefixtures("versions")
def test_a_start_clears_what_a_crash_left_and_what_has_no_blobs(
    services: Services, deltas: Deltas
) -> None:
    folder = folder_of(services)
    (folder / ".work-x").mkdir(parents=True)
    (folder / ".work-x" / "old").write_bytes(FIRST)
    (folder / f"{TWO}-{ONE}").write_bytes(b"")  # given up before
    (folder / f"{'a' * 64}-{ONE}").write_bytes(b"of a blob that is gone")
    with running(deltas):
        kept = wait_for(deltas)
    assert list(folder.iterdir()) == [kept]


@pytest.mark.usefixtures("versions")
def test_the_folder_keeps_within_its_bounds(
    services: Services, deltas: Deltas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_KEPT", 1)
    folder = folder_of(services)
    folder.mkdir()
    (folder / f"{ONE}-{TWO}").write_bytes(b"made earlier")
    assert deltas.find(ONE, TWO) is None
    work_off(deltas)
    assert [path.name for path in folder.iterdir()] == [f"{TWO}-{ONE}"]


def test_the_queue_is_bounded(
    services: Services, deltas: Deltas, publisher: PrivateKey, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "_MAX_QUEUE", 1)
    contents = [b"%d" % number * 20_000 for number in (1, 2, 3)]
    for number, content in enumerate(contents, 1):
        push(services, write_bundle(tmp_path, publisher, version=number, content=content))
    for content in contents[1:]:
        assert deltas.find(sha256(contents[0]), sha256(content)) is None
    work_off(deltas)
    assert len(list(folder_of(services).iterdir())) == 1


@pytest.mark.usefixtures("versions")
def test_stopping_ends_the_encoder(services: Services, deltas: Deltas) -> None:
    deltas.find(ONE, TWO)
    with running(deltas):
        until = time.monotonic() + 30
        while not list(folder_of(services).glob(".work-*/new")):
            assert time.monotonic() < until
            time.sleep(0.01)
    assert not list(folder_of(services).glob(".work-*"))
