from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgefleet_contract.bundle import CHUNK_SIZE, MAX_FILE_SIZE, Digest, sha256
from edgefleet_contract.errors import Malformed, Unverified
from edgefleet_contract.reasons import Reason
from edgefleet_contract.sealed import (
    SEALED_DEK_SIZE,
    Dek,
    make_dek,
    open_chunks,
    open_dek,
    open_file,
    seal_chunks,
    seal_dek,
    seal_file,
    sealed_size,
)
from tests.contract import rfc9180

DEK = Dek(bytes(range(32)))
BUNDLE = sha256(b"bundle")
PATH = "onnx-int8/model.onnx"
STEP = CHUNK_SIZE + 16
DEVICE = X25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
NAMES = {"fleet": "demo", "device": "pi-1", "bundle": BUNDLE}

# Sizes around the edges of chunks, and texts of that size that are cheap to make.
SIZES = st.one_of(
    st.integers(0, 40),
    st.sampled_from(
        [CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 2 * CHUNK_SIZE, 2 * CHUNK_SIZE + 9]
    ),
)
THREE = bytes(range(256)) * (3 * CHUNK_SIZE // 256)
QUICK = settings(max_examples=60, deadline=None)


def text(size: int) -> bytes:
    return (THREE + THREE)[1 : size + 1]


def refuses(sealed: bytes, *, dek: Dek = DEK, bundle: Digest = BUNDLE, path: str = PATH) -> bool:
    """Whether a sealed file is refused, for the one reason that there is."""
    with pytest.raises(Unverified) as caught:
        open_file(dek, bundle, path, sealed)
    return caught.value.reason is Reason.UNSEALING_FAILED


@QUICK
@given(SIZES)
def test_what_was_sealed_opens_to_the_same_bytes(size: int) -> None:
    sealed = seal_file(DEK, BUNDLE, PATH, text(size))
    assert len(sealed) == sealed_size(size)
    assert open_file(DEK, BUNDLE, PATH, sealed) == text(size)


@QUICK
@given(SIZES, st.lists(st.integers(0, 3 * CHUNK_SIZE), max_size=6))
def test_how_a_stream_is_cut_into_pieces_does_not_matter(size: int, cuts: list[int]) -> None:
    raw = text(size)
    places = [0, *sorted(cuts), max(size, *cuts, 0) + 1]
    pieces = [raw[a:b] for a, b in pairwise(places)]
    sealed = list(seal_chunks(DEK, BUNDLE, PATH, pieces))
    whole = b"".join(sealed)
    assert whole == seal_file(DEK, BUNDLE, PATH, raw)
    assert all(len(chunk) == STEP for chunk in sealed[:-1])
    arrived = [whole[a:b] for a, b in pairwise(places)]
    arrived.append(whole[places[-1] :])
    opened = list(open_chunks(DEK, BUNDLE, PATH, arrived))
    assert b"".join(opened) == raw
    assert all(len(chunk) == CHUNK_SIZE for chunk in opened[:-1])


@QUICK
@given(SIZES, st.data())
def test_a_flipped_bit_is_refused(size: int, data: st.DataObject) -> None:
    sealed = bytearray(seal_file(DEK, BUNDLE, PATH, text(size)))
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    assert refuses(bytes(sealed))


def test_every_flipped_bit_and_every_cut_of_a_small_file_is_refused() -> None:
    sealed = seal_file(DEK, BUNDLE, PATH, b"eleven byte")
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        assert refuses(bytes(changed))
    for size in range(len(sealed)):
        assert refuses(sealed[:size])
        assert refuses(sealed[size + 1 :])


@QUICK
@given(SIZES, st.data())
def test_a_cut_file_is_refused_wherever_it_is_cut(size: int, data: st.DataObject) -> None:
    sealed = seal_file(DEK, BUNDLE, PATH, text(size))
    edges = [edge for edge in (0, 16, STEP, STEP + 16, 2 * STEP) if edge < len(sealed)]
    at = data.draw(st.one_of(st.integers(0, len(sealed) - 1), st.sampled_from(edges)))
    assert refuses(sealed[:at])


def test_chunks_out_of_their_order_are_refused() -> None:
    raw = bytes(CHUNK_SIZE) * 2 + b"end"
    chunks = list(seal_chunks(DEK, BUNDLE, PATH, (raw,)))
    assert len(chunks) == 3
    a, b, end = chunks
    assert open_file(DEK, BUNDLE, PATH, a + b + end) == raw
    assert a != b, "equal chunks are sealed differently"
    for order in (
        *([b, a, end], [a, a, end], [b, b, end], [a, end], [b, end], [end], [a, b], [a]),
        *([a, b, end, end], [a, b, b, end], [a, b, b""], [end, a, b], []),
    ):
        assert refuses(b"".join(order))


def test_an_empty_last_chunk_after_others_is_refused_though_it_is_authentic() -> None:
    """Whoever has the key could write one file in two ways; the second is no file."""
    from edgefleet_contract.sealed import _cipher, _nonce

    cipher, bound = _cipher(DEK, BUNDLE, PATH)
    first = cipher.encrypt(_nonce(0, False), bytes(CHUNK_SIZE), bound)
    assert refuses(first + cipher.encrypt(_nonce(1, True), b"", bound))
    assert open_file(DEK, BUNDLE, PATH, cipher.encrypt(_nonce(0, True), b"", bound)) == b""


@QUICK
@given(SIZES, st.sampled_from(["dek", "bundle", "path"]))
def test_another_key_bundle_or_path_opens_nothing(size: int, what: str) -> None:
    sealed = seal_file(DEK, BUNDLE, PATH, text(size))
    if what == "dek":
        assert refuses(sealed, dek=make_dek())
    elif what == "bundle":
        assert refuses(sealed, bundle=sha256(b"another"))
    else:
        assert refuses(sealed, path="tflite-int8/model.tflite")


def test_a_stream_that_ends_early_raises_at_its_end() -> None:
    sealed = seal_file(DEK, BUNDLE, PATH, bytes(2 * CHUNK_SIZE))
    opened = open_chunks(DEK, BUNDLE, PATH, (sealed[: STEP + 100],))
    assert next(opened) == bytes(CHUNK_SIZE)
    with pytest.raises(Unverified, match="chunk 1"):
        next(opened)


def test_sealing_hides_the_text_and_is_repeatable() -> None:
    raw = b"secret weights " * 1000
    sealed = seal_file(DEK, BUNDLE, PATH, raw)
    assert b"secret" not in sealed
    assert sealed == seal_file(DEK, BUNDLE, PATH, raw)
    assert sealed != seal_file(make_dek(), BUNDLE, PATH, raw)


@pytest.mark.parametrize(("bundle", "path"), [("A" * 64, PATH), ("", PATH), (BUNDLE, "../x")])
def test_what_is_no_digest_or_no_path_is_malformed(bundle: str, path: str) -> None:
    with pytest.raises(Malformed):
        seal_file(DEK, Digest(bundle), path, b"")
    with pytest.raises(Malformed):
        open_file(DEK, Digest(bundle), path, bytes(16))


@pytest.mark.parametrize("size", [-1, MAX_FILE_SIZE + 1])
def test_a_size_that_no_file_has_is_refused(size: int) -> None:
    with pytest.raises(Malformed) as caught:
        sealed_size(size)
    assert caught.value.reason is Reason.TOO_LARGE


# The key of a bundle, sealed for a device


@QUICK
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_a_key_opens_on_its_device_and_on_no_other(raw: bytes, private: bytes) -> None:
    device = X25519PrivateKey.from_private_bytes(private)
    assume(device.public_key() != DEVICE.public_key())
    sealed = seal_dek(Dek(raw), device.public_key(), **NAMES)
    assert len(sealed) == SEALED_DEK_SIZE
    assert open_dek(sealed, device, **NAMES) == Dek(raw)
    with pytest.raises(Unverified) as caught:
        open_dek(sealed, DEVICE, **NAMES)
    assert caught.value.reason is Reason.UNSEALING_FAILED
    assert raw.hex() not in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"fleet": "other"}, {"device": "pi-2"}, {"bundle": sha256(b"another")}]
)
def test_a_key_is_bound_to_fleet_device_and_bundle(change: dict[str, str]) -> None:
    sealed = seal_dek(DEK, DEVICE.public_key(), **NAMES)
    with pytest.raises(Unverified):
        open_dek(sealed, DEVICE, **{**NAMES, **change})


def test_every_flipped_bit_and_every_cut_of_a_sealed_key_is_refused() -> None:
    sealed = seal_dek(DEK, DEVICE.public_key(), **NAMES)
    changed = [sealed[:size] for size in range(len(sealed))] + [sealed + b"\0"]
    # The top bit of the encapsulated key is masked by X25519 (RFC 7748), but not by HPKE's context.
    for bit in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        changed.append(bytes(flipped))
    assert len(changed) == 80 + 1 + 640
    for one in changed:
        with pytest.raises(Unverified) as caught:
            open_dek(one, DEVICE, **NAMES)
        assert caught.value.reason is Reason.UNSEALING_FAILED


@pytest.mark.parametrize(
    "names",
    [{"fleet": "a|b"}, {"fleet": ""}, {"device": "pi 1"}, {"device": "x" * 65}, {"bundle": "ff"}],
)
def test_names_that_could_run_into_each_other_are_malformed(names: dict[str, str]) -> None:
    with pytest.raises(Malformed):
        seal_dek(DEK, DEVICE.public_key(), **{**NAMES, **names})
    with pytest.raises(Malformed):
        open_dek(bytes(SEALED_DEK_SIZE), DEVICE, **{**NAMES, **names})


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31)])
def test_a_public_key_of_low_order_is_not_sealed_for(point: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    with pytest.raises(Malformed, match="cannot be sealed for"):
        seal_dek(DEK, X25519PublicKey.from_public_bytes(point), **NAMES)


def test_a_key_does_not_show_itself() -> None:
    dek = make_dek()
    assert dek.raw.hex() not in repr(dek)
    assert repr(dek.raw) not in repr(dek)
    assert make_dek() != dek
    with pytest.raises(Malformed, match="31 bytes"):
        Dek(bytes(31))


def test_without_hpke_the_missing_version_is_named() -> None:
    """The rest of the contract works with an older `cryptography`."""
    script = (
        "import sys; sys.modules['cryptography.hazmat.primitives.hpke'] = None\n"
        "from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey as Key\n"
        "from edgefleet_contract import sealed\n"
        "from edgefleet_contract.errors import DeviceError\n"
        "digest = 'a' * 64\n"
        "assert sealed.seal_file(sealed.make_dek(), digest, 'x', b'')\n"
        "try:\n"
        "    sealed.open_dek(bytes(80), Key.generate(), fleet='f', device='d', bundle=digest)\n"
        "except DeviceError as error:\n"
        "    print(error.reason, error.message)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith("unsealing_failed sealed bundles need cryptography 47")


# A second reading of RFC 9180

A2_SECRET = "0bbe78490412b4bbea4812666f7916932b828bba79942424abb65244930d69a7"
A2_CIPHER = (
    "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"
)


def test_the_second_reading_gives_the_vector_of_rfc_9180_a_2_1() -> None:
    ephemeral = X25519PrivateKey.from_private_bytes(
        bytes.fromhex("f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600")
    )
    receiver = X25519PrivateKey.from_private_bytes(
        bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
    )
    info, aad, raw = b"Ode on a Grecian Urn", b"Count-0", b"Beauty is truth, truth beauty"
    enc, sealed = rfc9180.seal(ephemeral, receiver.public_key(), info, aad, raw)
    assert enc.hex() == "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a"
    dh = ephemeral.exchange(receiver.public_key())
    secret = rfc9180.shared_secret(dh, enc, receiver.public_key().public_bytes_raw())
    assert secret.hex() == A2_SECRET
    assert sealed.hex() == A2_CIPHER
    assert rfc9180.open_(enc, receiver, info, aad, sealed) == raw


def test_the_second_reading_opens_what_was_sealed_and_seals_what_opens() -> None:
    info = f"edgefleet.sealed/1|dek|demo|pi-1|{BUNDLE}".encode()
    sealed = seal_dek(DEK, DEVICE.public_key(), **NAMES)
    assert rfc9180.open_(sealed[:32], DEVICE, info, b"", sealed[32:]) == DEK.raw
    with pytest.raises(InvalidTag):
        rfc9180.open_(sealed[:32], DEVICE, info + b"x", b"", sealed[32:])
    enc, cipher = rfc9180.seal(X25519PrivateKey.generate(), DEVICE.public_key(), info, b"", DEK.raw)
    assert open_dek(enc + cipher, DEVICE, **NAMES) == DEK
