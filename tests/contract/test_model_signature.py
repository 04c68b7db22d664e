from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgefleet_contract.bundle import MANIFEST, SIGNATURE
from edgefleet_contract.errors import Malformed, PeerError
from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_contract.model_signature import open_bundle, sign_bundle
from tests.contract.makers import write_bundle

needs_peer = pytest.mark.skipif(
    importlib.util.find_spec("model_signing") is None, reason="model-signing is not installed"
)
CURVES = pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])


def model_signing(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_signing", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@needs_peer
@CURVES
def test_the_reference_implementation_accepts_our_signature_and_we_accept_its(
    tmp_path: Path, curve: type[ec.EllipticCurve]
) -> None:
    key = PrivateKey.wrap(ec.generate_private_key(curve()))
    folder = write_bundle(tmp_path, key)
    public, private = tmp_path / "pub.pem", tmp_path / "key.pem"
    public.write_text(key.public.pem)
    key.save(private)
    signature = folder / SIGNATURE

    check = ("verify", "key", "--public_key", public, "--signature", signature, folder)
    assert model_signing(*check).returncode == 0

    signed = model_signing(
        "sign", "key", "--private_key", private, "--signature", signature, folder
    )
    assert signed.returncode == 0, signed.stderr
    raw = (folder / MANIFEST).read_bytes()
    opened = open_bundle(raw, signature.read_bytes(), KeyRing([key.public]))
    assert opened.manifest.name == "digits-1"

    (folder / "v" / "model.onnx").write_bytes(b"other")
    assert model_signing(*check).returncode != 0


def test_no_byte_of_a_signature_can_change_what_it_says(tmp_path: Path) -> None:
    """A mutant is refused, or (bytes outside of what is signed) opens the very same bundle."""
    key = PrivateKey.generate_p256()
    ring = KeyRing([key.public])
    folder = write_bundle(tmp_path, key)
    raw = (folder / MANIFEST).read_bytes()
    signature = (folder / SIGNATURE).read_bytes()
    good = open_bundle(raw, signature, ring)
    tried = accepted = 0
    for position in range(len(signature)):
        for flip in (0x01, 0x20, 0x80):
            mutant = bytearray(signature)
            mutant[position] ^= flip
            tried += 1
            try:
                opened = open_bundle(raw, bytes(mutant), ring)
            except PeerError:
                continue
            accepted += 1
            assert opened == good
    assert tried > 5_000
    assert accepted == 0


def test_a_key_that_the_format_does_not_know_cannot_sign(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, PrivateKey.generate_p256())
    with pytest.raises(Malformed, match="ECDSA"):
        sign_bundle((folder / MANIFEST).read_bytes(), PrivateKey.generate_ed25519())
