from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edgefleet_contract import bundle as b
from edgefleet_contract import codec
from edgefleet_contract.enrolment import EnrolRequest
from edgefleet_contract.errors import Malformed, PeerError
from edgefleet_contract.orders import Sealed, Target
from edgefleet_contract.reasons import Reason
from edgefleet_contract.sealed import (
    Dek,
    file_key,
    open_chunks_with,
    parse_seal_key,
    render_seal_key,
    seal_file,
    sealed_size,
)
from edgefleet_contract.sealed_index import (
    SealedFile,
    SealedIndex,
    check_index,
    parse_index,
    render_index,
)
from tests.contract.test_messages import CAPABLE
from tests.vectors.make import manifest

BUNDLE = b.sha256(b"bundle")
KEY = base64.b64encode(bytes(range(80))).decode()


def index_of(made: b.Manifest) -> SealedIndex:
    return SealedIndex(
        BUNDLE,
        tuple(
            SealedFile(file.path, sealed_size(file.size), file.sha256, file.chunk_list_sha256)
            for file in made.files
        ),
    )


def test_an_index_reads_back_as_it_was_written() -> None:
    index = index_of(manifest())
    assert parse_index(render_index(index)) == index
    check_index(index, BUNDLE, manifest(), what="digits@3")


def test_an_index_of_other_files_sizes_or_another_bundle_is_not_the_bundles() -> None:
    index = index_of(manifest())
    longer = replace(index.files[0], size=index.files[0].size + 1)
    for wrong in (
        replace(index, bundle=b.sha256(b"another")),
        replace(index, files=index.files[1:]),
        replace(index, files=(*index.files, replace(index.files[-1], path="z"))),
        replace(index, files=(longer, *index.files[1:])),
        replace(index, files=()),
    ):
        with pytest.raises(PeerError) as caught:
            check_index(wrong, BUNDLE, manifest(), what="digits@3")
        assert caught.value.reason is Reason.BUNDLE_MISMATCH


def test_the_key_of_a_file_opens_that_file_and_no_other() -> None:
    dek = Dek(bytes(32))
    one, two = (seal_file(dek, BUNDLE, path, b"weights") for path in ("a", "b"))
    key = file_key(dek, BUNDLE, "a")
    assert b"".join(open_chunks_with(key, BUNDLE, "a", (one,))) == b"weights"
    with pytest.raises(PeerError) as caught:
        list(open_chunks_with(key, BUNDLE, "b", (two,)))
    assert caught.value.reason is Reason.UNSEALING_FAILED


def test_targets_differ_by_their_index_and_not_by_how_the_key_was_sealed() -> None:
    clear = Target("digits", "digits", 1, BUNDLE, BUNDLE, 9)
    sealed = replace(clear, sealed=Sealed(KEY, b.sha256(b"index")))
    again = replace(clear, sealed=Sealed("A" * 107 + "=", b.sha256(b"index")))
    assert sealed == again
    assert sealed != clear
    assert sealed != replace(clear, sealed=Sealed(KEY, b.sha256(b"another index")))
    assert codec.decode(Target, codec.encode(sealed), what="target").sealed is not None
    assert KEY not in repr(sealed)


@pytest.mark.parametrize("dek", ["", "A" * 104, KEY + "\n", KEY[:-2] + "B=", "A" * 108, "-" * 108])
def test_a_sealed_key_has_one_spelling_of_80_bytes(dek: str) -> None:
    with pytest.raises(Malformed):
        Sealed(dek, BUNDLE)


def test_a_seal_key_reads_back_and_one_that_shares_its_secret_with_all_is_refused() -> None:
    public = X25519PrivateKey.generate().public_key()
    assert parse_seal_key(render_seal_key(public)) == public
    for wrong in ("", "0" * 64, "01" + "0" * 62, "A" * 64, "ab"):
        with pytest.raises(Malformed):
            parse_seal_key(wrong)


@pytest.mark.parametrize("wrong", ["ab", "A" * 64, "0" * 65, " "])
def test_an_enrolment_with_a_seal_key_that_is_none_is_malformed(wrong: str) -> None:
    with pytest.raises(Malformed):
        EnrolRequest("s", "pi-1", "csr", CAPABLE, wrong)
    assert EnrolRequest("s", "pi-1", "csr", CAPABLE).seal_key == ""
