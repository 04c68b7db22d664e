"""The bundles on the shelf."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from edgefleet_contract.bundle import chunk_list, parse_manifest, sha256
from edgefleet_contract.errors import Malformed, Unverified
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.reasons import Reason
from edgefleet_fleet.errors import Conflict, NotFound
from edgefleet_fleet.services import Services
from tests.contract.makers import write_bundle
from tests.fleet.stage import ME, push, receive


def test_a_bundle_is_complete_once_every_blob_is_there(
    services: Services, publisher: PrivateKey, tmp_path: Path
) -> None:
    folder = write_bundle(tmp_path, publisher, content=os.urandom(200_000))
    received = receive(services, folder)
    assert [file.path for file in received.missing] == ["v/golden.npz", "v/model.onnx"]
    with pytest.raises(Conflict, match="not on the shelf"):
        services.library.complete(
            received.bundle.digest, received.bundle.signature_sha256, actor=ME
        )
    done = push(services, folder)
    assert (done.complete, done.signer) == (True, publisher.public.id)
    assert receive(services, folder).missing == ()


def test_everything_that_a_device_fetches_lies_on_the_shelf(
    services: Services, publisher: PrivateKey, tmp_path: Path
) -> None:
    content = os.urandom(200_000)
    folder = write_bundle(tmp_path, publisher, content=content)
    bundle = push(services, folder)
    manifest = parse_manifest(b"".join(services.room.shelf.read(bundle.digest)))
    model = manifest.file("v/model.onnx")
    assert b"".join(services.room.shelf.read(model.sha256)) == content
    assert b"".join(services.room.shelf.read(model.chunk_list_sha256)) == chunk_list(content)
    signature = b"".join(services.room.shelf.read(bundle.signature_sha256))
    assert signature == (folder / "model.sig").read_bytes()


def test_a_bundle_by_an_unknown_publisher_is_refused_at_the_door(
    services: Services, tmp_path: Path
) -> None:
    folder = write_bundle(tmp_path, PrivateKey.generate_p256())
    with pytest.raises(Unverified) as refused:
        receive(services, folder)
    assert refused.value.reason is Reason.UNKNOWN_KEY
    with services.room.store.begin() as tx:
        assert tx.bundles.list() == ()


def test_unchecked_it_is_taken_and_marked_as_vouched_for_by_nobody(
    services: Services, tmp_path: Path
) -> None:
    folder = write_bundle(tmp_path, PrivateKey.generate_p256())
    assert push(services, folder, check=False).signer == ""


def test_a_manifest_that_was_changed_after_signing_is_refused(
    services: Services, publisher: PrivateKey, tmp_path: Path
) -> None:
    folder = write_bundle(tmp_path, publisher)
    raw = (folder / "bundle.json").read_bytes()
    (folder / "bundle.json").write_bytes(
        raw.replace(b'"max_abs_err_e6":10', b'"max_abs_err_e6":99')
    )
    with pytest.raises(Unverified) as refused:
        receive(services, folder)
    assert refused.value.reason is Reason.BUNDLE_MISMATCH


def test_a_version_is_never_used_for_two_contents(
    services: Services, publisher: PrivateKey, tmp_path: Path
) -> None:
    push(services, write_bundle(tmp_path / "a", publisher, content=b"one"))
    with pytest.raises(Conflict, match="exists already"):
        receive(services, write_bundle(tmp_path / "b", publisher, content=b"two"))


def test_the_shelf_takes_only_what_a_bundle_names(
    services: Services, publisher: PrivateKey, tmp_path: Path
) -> None:
    with pytest.raises(NotFound):
        services.uploads.put(sha256(b"stray"), io.BytesIO(b"stray"))
    with pytest.raises(Malformed):
        services.uploads.put("../../etc/passwd", io.BytesIO(b""))
    folder = write_bundle(tmp_path, publisher)
    (file, _) = receive(services, folder).missing
    with pytest.raises(Malformed) as refused:
        services.uploads.put(file.sha256, io.BytesIO(b"x" * file.size))
    assert refused.value.reason is Reason.DIGEST_MISMATCH
