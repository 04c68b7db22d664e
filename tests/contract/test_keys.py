from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519

from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.keys import PrivateKey, PublicKey


def test_a_saved_key_is_the_owners_alone_and_loads_again(tmp_path: Path) -> None:
    key = PrivateKey.generate_p256()
    key.save(tmp_path / "k.pem", passphrase=b"open sesame")
    assert stat.S_IMODE((tmp_path / "k.pem").stat().st_mode) == 0o600
    loaded = PrivateKey.load(tmp_path / "k.pem", passphrase=b"open sesame")
    assert loaded.public == key.public
    assert key.public.is_signature(loaded.sign(b"m"), b"m")


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    first = PrivateKey.generate_ed25519()
    first.save(tmp_path / "k.pem")
    with pytest.raises(OperatorError, match="exists already"):
        PrivateKey.generate_ed25519().save(tmp_path / "k.pem")
    assert PrivateKey.load(tmp_path / "k.pem").public == first.public


@pytest.mark.parametrize(
    ("content", "passphrase", "said"),
    [
        (None, None, "cannot read"),
        (b"not a key", None, "not a usable private key"),
        (PrivateKey.generate_p256().to_pem(passphrase=b"x"), None, "protected by a passphrase"),
        (PrivateKey.generate_p256().to_pem(passphrase=b"x"), b"y", "not a usable private key"),
        (PrivateKey.generate_p256().to_pem(), b"x", "has no passphrase"),
    ],
)
def test_a_key_that_cannot_be_used_says_why(
    tmp_path: Path, content: bytes | None, passphrase: bytes | None, said: str
) -> None:
    path = tmp_path / "k.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OperatorError, match=said):
        PrivateKey.load(path, passphrase=passphrase)


def test_a_private_key_does_not_show_itself() -> None:
    key = PrivateKey.generate_ed25519()
    secret = key.to_pem().decode().splitlines()[1]
    assert secret not in repr(key)
    assert key.public.id in repr(key)


def test_algorithms_that_are_not_ours_are_refused() -> None:
    for stranger in (
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
        ec.generate_private_key(ec.SECP256K1()),
        x25519.X25519PrivateKey.generate(),
    ):
        with pytest.raises(Malformed, match="not supported"):
            PublicKey.wrap(stranger.public_key())


def test_a_signature_of_another_message_or_key_does_not_match() -> None:
    one, two = PrivateKey.generate_p256(), PrivateKey.generate_p256()
    assert not one.public.is_signature(one.sign(b"a"), b"b")
    assert not one.public.is_signature(two.sign(b"a"), b"a")
    assert not one.public.is_signature(b"", b"a")
