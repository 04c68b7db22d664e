"""Sealed bundles on a device: fetched and kept sealed, opened in memory, by this device only."""

from __future__ import annotations

import asyncio
import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgefleet_agent import identity, install, transitions
from edgefleet_agent.adapters.http_chunks import HttpChunks
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.bundles import Bundles
from edgefleet_agent.device import Device, Installed
from edgefleet_agent.install_events import Begin, OrderTaken
from edgefleet_agent.ports import Failed, FileSeal, ModelSpec
from edgefleet_agent.runtime.loading import Job, job_for, parse_job, read_file, render_job
from edgefleet_agent.runtime.trial_runner import try_model
from edgefleet_agent.transfer.mover import Mover
from edgefleet_agent.unsealing import no_key
from edgefleet_contract import bundle as b
from edgefleet_contract.errors import DeviceError, OperatorError, PeerError, TransientError
from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_contract.orders import Target
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.sealed import seal_file
from edgefleet_contract.sealed_index import SealedIndex, render_index
from tests.agent.board import Board
from tests.agent.bundles import PUBLISHER, make_bundle
from tests.agent.hosting import until
from tests.agent.models import (
    WEIGHTS,
    model_path,
    pixels,
    with_file,
)
from tests.agent.sealing import new_seal_key, plain_in, seal_bundle
from tests.agent.shelf import Shelf
from tests.agent.test_bundles import KEY, first
from tests.contract.makers import order_of, target_of, write_bundle


def device(folder: Path, *, key: PrivateKey = KEY) -> Bundles:
    store = Store(folder / "store")
    ring = KeyRing([key.public])
    return Bundles(
        store=store,
        fetcher=Mover(store, (HttpChunks(),)),
        publishers=lambda: ring,
        choose=first,
        hw="arm64",
        unseal=new_seal_key(folder)[1],
    )


def bring(made: Bundles, target: Target, shelf: Shelf) -> Installed:
    return made.bring(target, (shelf.url,), lambda *_: None).installed


CONTENT = os.urandom(300_000)


def read_model(job: Job) -> bytes:
    return read_file(job, job.variant.model)


def model_seal(spec: ModelSpec) -> FileSeal:
    found = spec.files[spec.variant.model].seal
    assert found is not None
    return found


def test_a_sealed_bundle_arrives_sealed_and_is_opened_in_memory(
    tmp_path: Path, shelf: Shelf
) -> None:
    sealed = seal_bundle(write_bundle(tmp_path, KEY, content=CONTENT))
    shelf.blobs |= sealed.blobs
    made = device(tmp_path / "pi")
    key, _ = new_seal_key(tmp_path / "pi")
    spec = made.spec(bring(made, sealed.target(key.public_key()), shelf))
    assert model_path(spec).read_bytes() == sealed.blobs[model_path(spec).name] != CONTENT
    assert read_model(job_for(spec, threads=1)) == CONTENT
    assert plain_in(tmp_path / "pi", CONTENT) == []
    assert model_seal(spec).key not in repr(spec)
    job = job_for(spec, threads=1)
    assert model_seal(spec).key not in repr(job)
    assert parse_job(render_job(job)) == job


def test_a_cut_transfer_of_a_sealed_file_resumes_in_the_middle(
    tmp_path: Path, shelf: Shelf
) -> None:
    sealed = seal_bundle(write_bundle(tmp_path, KEY, content=CONTENT))
    shelf.blobs |= sealed.blobs
    target = sealed.target(new_seal_key(tmp_path / "pi")[0].public_key())
    shelf.cut_after = 70_000  # a chunk and a bit, at each of three tries
    with pytest.raises(TransientError):
        bring(device(tmp_path / "pi"), target, shelf)
    assert plain_in(tmp_path / "pi", CONTENT) == []
    shelf.cut_after, shelf.requests = None, []
    made = device(tmp_path / "pi")
    assert read_model(job_for(made.spec(bring(made, target, shelf)), threads=1)) == CONTENT
    assert any(start > 0 for _, start in shelf.requests)


@pytest.mark.parametrize("names", [{"device": "pi-2"}, {"fleet": "other"}], ids=["device", "fleet"])
def test_what_is_sealed_for_another_is_refused_before_anything_is_fetched(
    tmp_path: Path, shelf: Shelf, names: dict[str, str]
) -> None:
    sealed = seal_bundle(write_bundle(tmp_path, KEY, content=CONTENT))
    shelf.blobs |= sealed.blobs
    made = device(tmp_path / "pi")
    key, _ = new_seal_key(tmp_path / "pi")
    stranger, _ = new_seal_key(tmp_path / "stranger")
    for target in (sealed.target(stranger.public_key()), sealed.target(key.public_key(), **names)):
        with pytest.raises(PeerError) as caught:
            bring(made, target, shelf)
        assert caught.value.reason is Reason.UNSEALING_FAILED
    assert len(shelf.requests) == 4  # bundle.json and model.sig, twice
    assert not any((tmp_path / "pi" / "store").rglob("*.part"))


def test_a_device_without_a_key_says_so(tmp_path: Path, shelf: Shelf) -> None:
    sealed = seal_bundle(write_bundle(tmp_path, KEY))
    target = sealed.target(new_seal_key(tmp_path / "pi")[0].public_key())
    assert target.sealed is not None
    made = device(tmp_path / "pi")
    (tmp_path / "pi" / "identity" / "seal.key").unlink()
    shelf.blobs |= sealed.blobs
    for attempt in (lambda: bring(made, target, shelf), lambda: no_key(target, target.sealed)):
        with pytest.raises(DeviceError) as caught:
            attempt()  # type: ignore[no-untyped-call] # a lambda
        assert caught.value.reason is Reason.UNSEALING_FAILED


def test_an_index_of_another_bundle_or_of_other_files_is_refused(
    tmp_path: Path, shelf: Shelf
) -> None:
    sealed = seal_bundle(write_bundle(tmp_path, KEY))
    shelf.blobs |= sealed.blobs
    made = device(tmp_path / "pi")
    target = sealed.target(new_seal_key(tmp_path / "pi")[0].public_key())
    assert target.sealed is not None
    for index, reason in (
        (replace(sealed.index, bundle=b.Digest("0" * 64)), Reason.BUNDLE_MISMATCH),
        (replace(sealed.index, files=sealed.index.files[:1]), Reason.BUNDLE_MISMATCH),
        (SealedIndex(sealed.digest, ()), Reason.BUNDLE_MISMATCH),
    ):
        digest = shelf.put(render_index(index))
        with pytest.raises(PeerError) as caught:
            bring(made, replace(target, sealed=replace(target.sealed, index_sha256=digest)), shelf)
        assert caught.value.reason is reason
    assert not list((tmp_path / "pi" / "store" / "blobs").iterdir())


def test_sealed_blobs_that_are_needed_are_kept_and_others_collected(
    tmp_path: Path, shelf: Shelf
) -> None:
    made = device(tmp_path / "pi")
    key = new_seal_key(tmp_path / "pi")[0].public_key()
    installed = []
    for version in (1, 2):
        sealed = seal_bundle(write_bundle(tmp_path, KEY, version=version, content=CONTENT))
        shelf.blobs |= sealed.blobs
        installed.append(bring(made, sealed.target(key), shelf))
    assert made.collect(installed[1:]) == 5  # two documents, the index, model and golden vectors
    assert read_model(job_for(made.spec(installed[1]), threads=1)) == CONTENT


def test_sealed_and_in_the_clear_are_two_targets_and_the_clear_files_go(
    tmp_path: Path, shelf: Shelf
) -> None:
    folder = write_bundle(tmp_path, KEY, content=CONTENT)
    sealed = seal_bundle(folder)
    shelf.put_bundle(folder)
    shelf.blobs |= sealed.blobs
    made = device(tmp_path / "pi")
    clear = bring(made, target_of(folder), shelf)
    target = sealed.target(new_seal_key(tmp_path / "pi")[0].public_key())
    before = Device(slots={"digits": clear})
    (changed,) = transitions.changed(before, order_of(target))
    made.collect([bring(made, changed, shelf)])
    assert plain_in(tmp_path / "pi", CONTENT) == []


# the child


def spec_of(tmp_path: Path, shelf: Shelf):  # type: ignore[no-untyped-def] # of a model that runs
    sealed = seal_bundle(make_bundle(tmp_path, 1))
    shelf.blobs |= sealed.blobs
    made = device(tmp_path / "pi", key=PUBLISHER)
    target = sealed.target(new_seal_key(tmp_path / "pi")[0].public_key())
    return sealed, made.spec(bring(made, target, shelf))


def trial(spec) -> object:  # type: ignore[no-untyped-def] # as above
    return asyncio.run(try_model(spec, timeout_s=60, threads=1, data_mib=1024))


def test_the_trial_of_a_sealed_model_measures_what_it_measures_in_the_clear(
    tmp_path: Path, shelf: Shelf
) -> None:
    _, spec = spec_of(tmp_path, shelf)
    report = trial(spec)
    assert not isinstance(report, Failed), report
    assert (report.vectors, report.max_abs_err) == (3, 0.0)


def test_a_child_refuses_what_it_cannot_open_and_what_was_not_signed(
    tmp_path: Path, shelf: Shelf
) -> None:
    sealed, spec = spec_of(tmp_path, shelf)
    for path, file in spec.files.items():
        other = replace(file, seal=replace(file.seal, key="00" * 32))
        failed = trial(with_file(spec, path, other))
        assert (failed.reason, "00" * 32 in failed.detail) == (Reason.UNSEALING_FAILED, False)
        # well sealed, and something else than the publisher signed
        place = tmp_path / "other"
        place.write_bytes(seal_file(sealed.dek, sealed.digest, path, b"another model"))
        failed = trial(with_file(spec, path, replace(file, path=str(place))))
        assert failed.reason is Reason.DIGEST_MISMATCH
        failed = trial(with_file(spec, path, replace(file, path=str(tmp_path / "nothing"))))
        assert failed.reason is Reason.STORAGE_FAILED


def test_the_key_crosses_to_a_child_on_its_channel_alone(tmp_path: Path, shelf: Shelf) -> None:
    """Nothing of it stands in a command line or an environment, which others may read."""

    async def story() -> None:
        sealed = seal_bundle(make_bundle(tmp_path, 1))
        shelf.blobs |= sealed.blobs
        key, unseal = new_seal_key(tmp_path / "pi")
        async with Board(tmp_path / "pi", unseal=unseal) as board:
            order = order_of(sealed.target(key.public_key()), seq=1, sources=(shelf.url,))
            assert await board.install(order) is Phase.COMMITTED
            spec = board.host._swaps.served["digits"].spec
            (pid,) = board.host.worker_pids.values()
            assert model_seal(spec).key.encode() not in shown_of(pid)

    asyncio.run(story())


def shown_of(pid: int) -> bytes:
    """What others may read of a process."""
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


# the whole device


def test_a_sealed_release_serves_survives_a_power_cut_and_comes_back_without_a_fleet(
    tmp_path: Path, shelf: Shelf
) -> None:
    async def story() -> None:
        one, two = (seal_bundle(make_bundle(tmp_path, version)) for version in (1, 2))
        bad = seal_bundle(make_bundle(tmp_path, 3, golden_off=1.0))
        shelf.blobs |= one.blobs | two.blobs | bad.blobs
        key, unseal = new_seal_key(tmp_path / "pi")
        public = key.public_key()
        async with Board(tmp_path / "pi", unseal=unseal) as board:
            for seq, sealed in enumerate((one, two), 1):
                order = order_of(sealed.target(public), seq=seq, sources=(shelf.url,))
                assert await board.install(order) is Phase.COMMITTED
            assert np.allclose(board.answer()[1], pixels(1) @ WEIGHTS + 2)
            failed = order_of(bad.target(public), seq=3, sources=(shelf.url,))
            assert await board.install(failed) is Phase.FAILED
            assert board.heard.steps[-1][1] is Reason.GOLDEN_MISMATCH
            assert board.installer.device.quarantined == (bad.digest,)
        shelf.blobs.clear()  # from here on there is no fleet
        async with Board(tmp_path / "pi", unseal=unseal) as board:
            assert np.allclose(board.answer()[1], pixels(1) @ WEIGHTS + 2)
        model = two.index.file("onnx/model.onnx").sha256
        path = tmp_path / "pi" / "store" / "blobs" / model
        path.chmod(0o600)
        path.write_bytes(bytes(1000))
        async with Board(tmp_path / "pi", unseal=unseal) as board:
            await asyncio.to_thread(until, lambda: board.answer()[0] == 200, 30)
            assert np.allclose(board.answer()[1], pixels(1) @ WEIGHTS + 1)

    asyncio.run(story())


def test_a_failed_opening_is_not_held_against_the_bundle(tmp_path: Path, shelf: Shelf) -> None:
    async def story() -> None:
        sealed = seal_bundle(make_bundle(tmp_path, 1))
        stranger = new_seal_key(tmp_path / "stranger")[0].public_key()
        wrong = replace(sealed.target(stranger), max_bytes=10**6)
        shelf.blobs |= sealed.blobs
        key, unseal = new_seal_key(tmp_path / "pi")
        async with Board(tmp_path / "pi", unseal=unseal) as board:
            first = order_of(wrong, seq=1, sources=(shelf.url,))
            assert await board.install(first) is Phase.FAILED
            assert board.heard.steps[-1][1] is Reason.UNSEALING_FAILED
            assert board.installer.device.quarantined == ()
            right = order_of(sealed.target(key.public_key()), seq=2, sources=(shelf.url,))
            assert await board.install(right) is Phase.COMMITTED

    asyncio.run(story())


def test_an_order_that_is_only_sealed_anew_changes_the_journal_and_nothing_that_runs(
    tmp_path: Path,
) -> None:
    sealed = seal_bundle(write_bundle(tmp_path, KEY))
    old, new = (new_seal_key(tmp_path / name)[0].public_key() for name in ("old", "new"))
    item = Installed(sealed.target(old), "v", "onnxruntime")
    before = Device(seq=1, slots={"digits": item})
    fresh = sealed.target(new)
    device, _ = install.step(before, OrderTaken(order_of(fresh, seq=2)))
    device, commands = install.step(device, Begin())
    assert device.phase is Phase.COMMITTED
    assert [type(command).__name__ for command in commands] == ["Settle"]
    assert device.slots["digits"].target.sealed is fresh.sealed
    assert device.previous == {}


# the key


def test_the_seal_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    made = identity.seal_key(tmp_path)
    path = tmp_path / "identity" / "seal.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert identity.seal_key(tmp_path).public_key() == made.public_key()


def test_a_seal_key_that_systemd_gives_is_used_and_never_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = identity.seal_key(tmp_path / "elsewhere")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "elsewhere" / "identity"))
    assert identity.seal_key(tmp_path / "pi").public_key() == given.public_key()
    assert not (tmp_path / "pi").exists()


def test_a_key_that_is_none_or_another_is_said(tmp_path: Path) -> None:
    (tmp_path / "identity").mkdir()
    path = tmp_path / "identity" / "seal.key"
    for raw in (b"nothing", PrivateKey.generate_p256().to_pem()):
        path.write_bytes(raw)
        with pytest.raises(OperatorError):
            identity.seal_key(tmp_path)
