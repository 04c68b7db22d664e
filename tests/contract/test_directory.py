from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgefleet_contract.directory import verify_directory
from edgefleet_contract.errors import EdgefleetError, OperatorError, PeerError
from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_contract.reasons import Reason
from tests.contract.makers import write_bundle

KEY = PrivateKey.generate_p256()
RING = KeyRing([KEY.public])


def flip(folder: Path) -> None:
    path = folder / "v" / "model.onnx"
    raw = bytearray(path.read_bytes())
    raw[0] ^= 1
    path.write_bytes(raw)


def link(folder: Path) -> None:
    path = folder / "v" / "model.onnx"
    (folder.parent / "elsewhere").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(folder.parent / "elsewhere")


DAMAGE: list[tuple[str, Callable[[Path], object], Reason]] = [
    ("a flipped bit", flip, Reason.DIGEST_MISMATCH),
    ("a missing file", lambda f: (f / "v/golden.npz").unlink(), Reason.BUNDLE_MISMATCH),
    ("an extra file", lambda f: (f / "v/extra.so").write_bytes(b""), Reason.BUNDLE_MISMATCH),
    ("a hidden file", lambda f: (f / ".git").write_bytes(b""), Reason.BUNDLE_MISMATCH),
    ("a symbolic link", link, Reason.BUNDLE_MISMATCH),
    (
        "a second name",
        lambda f: os.link(f / "v/model.onnx", f.parent / "again"),
        Reason.BUNDLE_MISMATCH,
    ),
    ("a device", lambda f: os.mkfifo(f / "v/pipe"), Reason.BUNDLE_MISMATCH),
    (
        "another manifest",
        lambda f: (f / "bundle.json").write_bytes(
            (f / "bundle.json").read_bytes().replace(b'"version":1', b'"version":2')
        ),
        Reason.BUNDLE_MISMATCH,
    ),
]


def test_a_bundle_as_it_was_signed_is_accepted(tmp_path: Path) -> None:
    assert verify_directory(write_bundle(tmp_path, KEY), RING).manifest.model == "digits"


@pytest.mark.parametrize(("what", "damage", "reason"), DAMAGE, ids=[row[0] for row in DAMAGE])
def test_a_changed_bundle_is_refused_with_its_reason(
    tmp_path: Path, what: str, damage: Callable[[Path], object], reason: Reason
) -> None:
    folder = write_bundle(tmp_path, KEY)
    damage(folder)
    with pytest.raises(PeerError) as caught:
        verify_directory(folder, RING)
    assert caught.value.reason is reason


def test_a_folder_that_is_no_bundle_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(OperatorError) as caught:
        verify_directory(tmp_path, RING)
    assert "directory of a bundle" in caught.value.hint


def test_nothing_is_accepted_without_a_key(tmp_path: Path) -> None:
    with pytest.raises(EdgefleetError, match="no publisher key"):
        verify_directory(write_bundle(tmp_path, KEY), KeyRing())
