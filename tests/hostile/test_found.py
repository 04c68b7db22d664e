"""Faults that the corpus found once: each stays mended."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgefleet_agent import policy
from edgefleet_agent.adapters.http_chunks import HttpChunks
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.device import Device
from edgefleet_agent.install_commands import Reconsider
from edgefleet_agent.install_events import (
    Event,
    OrderRejected,
    OrderTaken,
    ProbationPassed,
    RolledBack,
    StepFailed,
)
from edgefleet_agent.ports import Canceled
from edgefleet_agent.transfer.mover import Mover
from edgefleet_contract import canonical, messages, reported
from edgefleet_contract.bundle import Digest, chunk_list, sha256
from edgefleet_contract.directory import verify_directory
from edgefleet_contract.envelope import pae
from edgefleet_contract.errors import Malformed, TransientError, Unverified
from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_contract.model_signature import PAYLOAD_TYPE
from edgefleet_contract.orders import Order
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.hosting import until
from tests.agent.playbook import chosen, committed, happy, play, target
from tests.contract.makers import order_of, write_bundle
from tests.fleet.device import event_of
from tests.hostile import liars

ESCAPES = b'"' + b'\\"' * (canonical.MAX_BYTES // 2 - 1)


@pytest.mark.parametrize("raw", [ESCAPES, ESCAPES + b"\\", b'["' * 100_000, b'"' * 200_000])
def test_no_spelling_makes_the_reader_look_at_a_byte_twice(raw: bytes) -> None:
    """A string without an end once cost the square of its length: minutes for 256 KiB."""
    began = time.process_time()
    with pytest.raises(Malformed):
        canonical.parse_message(raw, what="x")
    assert time.process_time() - began < 5


@pytest.mark.parametrize("raw", [b'{"a":"\\ud800"}', b'["\\uDFFF"]', b'["\\ude00\\ud83d"]'])
def test_text_that_cannot_be_written_is_not_read(raw: bytes) -> None:
    """A lone surrogate in a message once ended whoever stored or hashed it."""
    with pytest.raises(Malformed, match="lone surrogate"):
        canonical.parse_message(raw, what="x")
    assert canonical.parse_message(b'["\\ud83d\\ude00"]', what="x") == ["\U0001f600"]


def under_way(version: int) -> Device:
    """Version 1 is committed, another one serves on probation."""
    order = order_of(target(version), seq=2)
    return play(committed(1), *happy(order, chosen(version))[:7])[0]


def waited(order: Order, *end: Event, version: int = 3) -> policy.Accept | policy.Refuse:
    """What becomes of an order that waited for the end of a swap to another version."""
    device, commands = play(under_way(version), OrderTaken(order), *end)
    assert commands[-1] == Reconsider(order)
    return policy.judge_waited(order, device, None, order.issued)


def test_an_order_that_waited_cannot_bring_back_an_older_version() -> None:
    """It was judged against what ran before the order that it waited for."""
    verdict = waited(order_of(target(2), seq=3), ProbationPassed())
    assert isinstance(verdict, policy.Refuse)
    assert verdict.reason is Reason.DOWNGRADE
    allowed = order_of(target(2), seq=3, allow_downgrade=True)
    assert waited(allowed, ProbationPassed()) == policy.Accept()


def test_an_order_that_waited_cannot_bring_what_just_failed() -> None:
    failed = StepFailed(Reason.PROBATION_FAILED, "", "digits")
    verdict = waited(order_of(target(2), seq=3), failed, RolledBack(), version=2)
    assert isinstance(verdict, policy.Refuse)
    assert verdict.reason is Reason.QUARANTINED


def test_the_number_of_the_last_order_never_falls() -> None:
    """An order that was refused meanwhile has a higher number than the one that waited."""
    first = order_of(target(3), seq=3)
    device, _ = play(
        under_way(2),
        OrderTaken(first),
        OrderRejected(order_of(target(4), seq=4), Reason.QUARANTINED),
        ProbationPassed(),
        OrderTaken(first),
    )
    assert (device.phase, device.seq) == (Phase.ACCEPTED, 4)


def pipe_as_manifest(folder: Path) -> None:
    (folder / "bundle.json").unlink()
    os.mkfifo(folder / "bundle.json")


def endless_signature(folder: Path) -> None:
    (folder / "model.sig").unlink()
    (folder / "model.sig").symlink_to("/dev/zero")


def folder_as_manifest(folder: Path) -> None:
    (folder / "bundle.json").unlink()
    (folder / "bundle.json").mkdir()


def bottomless(folder: Path) -> None:
    here = os.open(folder, os.O_RDONLY)
    for _ in range(2_000):
        os.mkdir("a", dir_fd=here)
        below = os.open("a", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def terminal_codes(folder: Path) -> None:
    (folder / "\x1b]0;mine\x07").write_bytes(b"")


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "damage",
    [pipe_as_manifest, endless_signature, folder_as_manifest, bottomless, terminal_codes],
)
def test_a_directory_that_somebody_prepared_is_refused_at_once(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """A pipe once made the reader wait for ever, /dev/zero eat memory, 1,000 folders break off."""
    key = PrivateKey.generate_p256()
    folder = write_bundle(tmp_path, key)
    damage(folder)
    with pytest.raises(Unverified) as caught:
        verify_directory(folder, KeyRing([key.public]))
    assert caught.value.reason is Reason.BUNDLE_MISMATCH
    assert caught.value.message.isprintable()
    subprocess.run(["rm", "-rf", folder], check=True)  # shutil is lost in so many folders


def test_a_file_that_grew_is_not_read_to_its_end(tmp_path: Path) -> None:
    key = PrivateKey.generate_p256()
    folder = write_bundle(tmp_path, key)
    os.truncate(folder / "v" / "model.onnx", 2**43)  # sparse: 8 TiB take hours to hash
    with pytest.raises(Unverified) as caught:
        verify_directory(folder, KeyRing([key.public]))
    assert caught.value.reason is Reason.DIGEST_MISMATCH


BODY = bytes(range(256)) * 600  # three chunks


@pytest.mark.timeout(30)
@pytest.mark.parametrize("tell", [liars.slow_head, liars.slow_body, liars.tiny_chunks])
def test_a_source_that_sends_next_to_nothing_is_given_up(
    tmp_path: Path, tell: Callable[..., None]
) -> None:
    """A byte now and then once held a device for days, whatever the fleet ordered meanwhile."""
    with liars.lying() as liar:
        liar.blobs = {sha256(BODY): BODY}
        liar.tell(sha256(BODY), liars.Lie(tell, frozenset()))
        fetcher = Mover(Store(tmp_path), [HttpChunks(block_s=0.3)])
        with pytest.raises(TransientError):
            fetcher.fetch(sha256(BODY), max_bytes=len(BODY), sources=(liar.url,), what="x")


@pytest.mark.timeout(30)
def test_a_transfer_that_waits_for_its_source_can_be_canceled(tmp_path: Path) -> None:
    with liars.lying() as liar:
        liar.tell(Digest("0" * 64), liars.Lie(liars.slow_body, frozenset()))
        liar.blobs = {"0" * 64: BODY}
        fetcher = Mover(Store(tmp_path), [HttpChunks()])
        found: list[BaseException] = []

        def fetch() -> None:
            try:
                fetcher.fetch(Digest("0" * 64), max_bytes=9, sources=(liar.url,), what="x")
            except Canceled as error:
                found.append(error)

        thread = threading.Thread(target=fetch)
        thread.start()
        until(lambda: bool(liar.asked))
        fetcher.cancel()
        thread.join(10)
        assert len(found) == 1


def test_a_packed_answer_is_not_unpacked(tmp_path: Path) -> None:
    """256 MiB of nothing, packed twice into a few hundred bytes."""
    with liars.lying() as liar:
        liar.blobs = {sha256(BODY): BODY}
        liar.tell(sha256(BODY), liars.Lie(liars.gzip_bomb, frozenset()))
        fetcher = Mover(Store(tmp_path), [HttpChunks()])
        with pytest.raises(TransientError, match="content coding"):
            fetcher.fetch(sha256(BODY), max_bytes=1 << 30, sources=(liar.url,), what="x")


def test_an_address_that_nobody_named_is_not_asked(tmp_path: Path) -> None:
    """A shelf could send a device to any host of the device's network."""
    with liars.lying() as liar:
        liar.blobs = {sha256(BODY): BODY, "elsewhere": BODY}
        liar.tell(sha256(BODY), liars.Lie(liars.redirect_to_the_bytes, frozenset()))
        with pytest.raises(TransientError, match="answered 302"):
            Mover(Store(tmp_path), [HttpChunks()]).fetch(
                sha256(BODY), max_bytes=len(BODY), sources=(liar.url,), what="x"
            )
        assert "elsewhere" not in liar.asked


def test_a_nonsense_answer_or_address_is_a_passing_trouble(tmp_path: Path) -> None:
    """A library's own exception once ended the download without a word, and the install hung."""
    fetcher = Mover(Store(tmp_path), [HttpChunks()])
    with liars.lying() as liar:
        liar.tell(sha256(BODY), liars.Lie(liars.bad_chunk_size, frozenset()))
        for source in (liar.url, "http://" + "a" * 300, "http://[", "x", "", "http://\x00"):
            with pytest.raises(TransientError):
                fetcher.fetch(sha256(BODY), max_bytes=9, sources=(source,), what="x")


def test_a_source_with_too_few_bytes_is_named(tmp_path: Path) -> None:
    table = chunk_list(BODY)
    with liars.lying() as liar:
        liar.blobs = {sha256(BODY): BODY, sha256(table): table}
        liar.tell(sha256(BODY), liars.Lie(liars.nothing, frozenset()))
        with pytest.raises(TransientError, match=f"gave 0 of {len(BODY)} bytes"):
            Mover(Store(tmp_path), [HttpChunks()]).fetch_file(
                sha256(BODY),
                size=len(BODY),
                chunk_list_sha256=sha256(table),
                sources=(liar.url,),
                what="x",
                progress=lambda done: None,
            )


def said(**more: object) -> bytes:
    """A message of a device as JSON, with fields that it should not have."""
    value = json.loads(messages.render(event_of("pi-1", order_of(), Phase.FAILED, None, seq=1)))
    return json.dumps({**value, **more}, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "more",
    [
        {"detail": "a\0b"},
        {"boot_id": "b" * 129},
        {"rollout": "r" * 161},
        {"ts": -1},
        {"ts": 2**50},
        {"detail": "é" * 120_000},  # 240,000 bytes that come, 720,000 when written out
        {"measurements": {"\0": 1.0}},
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_not_taken(more: dict[str, object]) -> None:
    """One device's message once stopped the control room, or hid all devices from its page."""
    with pytest.raises(Malformed):
        messages.parse(reported.Event, said(**more), device="pi-1")
    assert messages.parse(reported.Event, said(), device="pi-1").device == "pi-1"


def test_an_error_shows_a_strangers_words_short_and_escaped() -> None:
    with pytest.raises(Malformed) as caught:
        messages.parse(reported.Event, said(measurements={"\n2026 all is well": "x"}))
    assert caught.value.message.isprintable()
    with pytest.raises(Malformed) as caught:
        messages.parse(reported.Event, said(phase="p" * 100_000))
    assert len(caught.value.message) < 1_000


def test_a_signature_of_a_kind_that_the_format_does_not_know_is_refused(tmp_path: Path) -> None:
    """Also by a key that is trusted: a director's, say, that somebody listed as a publisher's."""
    publisher, director = PrivateKey.generate_p256(), PrivateKey.generate_ed25519()
    folder = write_bundle(tmp_path, publisher)
    document = json.loads((folder / "model.sig").read_bytes())
    envelope = document["dsseEnvelope"]
    message = pae(PAYLOAD_TYPE, base64.b64decode(envelope["payload"]))
    envelope["signatures"][0]["sig"] = base64.b64encode(director.sign(message)).decode()
    hint = hashlib.sha256(director.public.pem.encode()).hexdigest()
    document["verificationMaterial"]["publicKey"]["hint"] = hint
    (folder / "model.sig").write_text(json.dumps(document))
    with pytest.raises(Malformed, match="ECDSA only"):
        verify_directory(folder, KeyRing([publisher.public, director.public]))
