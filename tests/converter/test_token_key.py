"""A key in a real token signs a real bundle; what goes wrong is said."""

from __future__ import annotations

import _sqlite3  # a shared library that is no PKCS#11 library
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pkcs11
import pytest

from edgefleet_contract.directory import verify_directory
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import KeyRing, PrivateKey, PublicKey, Signer
from edgefleet_converter import cli
from edgefleet_converter.pkcs11_uri import parse_uri
from edgefleet_converter.signing import open_signer
from edgefleet_converter.token_key import open_token_key, read_public_key
from tests.contract.makers import write_bundle
from tests.converter import models
from tests.converter.softhsm import PIN, SoftHsm

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm]:
    made = SoftHsm.start(tmp_path_factory.mktemp("softhsm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(made.folder / "softhsm2.conf"))
        for token in ("publisher", "twin", "twin"):
            made.add_token(token)
        made.add_key("publisher", "release", b"\x01")
        made.add_key("publisher", "large", b"\x02", curve="secp384r1")
        made.add_key("publisher", "rsa", b"\x03", curve="rsa")
        made.add_key("publisher", "double", b"\x04", copies=2)
        made.add_key("publisher", "other", b"\x05", curve="secp256k1")
        yield made


def run(*arguments: object) -> int:
    return cli.run([str(argument) for argument in arguments])


@pytest.mark.parametrize("label", ["release", "large"])
def test_what_a_token_signs_verifies_with_its_public_key(hsm: SoftHsm, label: str) -> None:
    uri = parse_uri(hsm.uri(rest=f"object={label}"))
    with open_token_key(uri, PIN) as key:
        signer: Signer = key
        signatures = {signer.sign(f"message {number}".encode()) for number in range(50)}
        assert len(signatures) == 50
        for number in range(50):
            found = [key.public.is_signature(s, f"message {number}".encode()) for s in signatures]
            assert sum(found) == 1
    assert read_public_key(uri, None) == key.public, "it is shown without a PIN, too"


def test_a_bundle_is_signed_in_a_token_and_verified_with_its_pem(
    hsm: SoftHsm, tmp_path: Path, capsys: Captured
) -> None:
    with open_token_key(parse_uri(hsm.uri(rest="id=%01")), PIN) as key:
        folder = write_bundle(tmp_path, key)
    assert verify_directory(folder, KeyRing([key.public])).signer == key.public.id
    assert run("keys", "show", hsm.uri()) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{key.public.id}  ECDSA P-256\n")
    (tmp_path / "publisher.pub").write_text(shown)
    assert PublicKey.from_pem(shown) == key.public
    assert run("verify", folder, "--key", tmp_path / "publisher.pub", "--no-run") == 0
    assert run("keys", "show", hsm.uri(), "--pin-file", hsm.pin, "--json") == 0
    assert json.loads(capsys.readouterr().out.partition("\n")[2])["pem"] == key.public.pem


def test_a_build_on_the_command_line_signs_in_a_token(hsm: SoftHsm, tmp_path: Path) -> None:
    source = models.save(models.mlp(), tmp_path, models.examples(64, 4))
    (tmp_path / "recipe.toml").write_text(
        'targets = ["onnx-float32"]\n[data]\ncalibration = "calibration.npy"\n'
        'held_out = "held_out.npz"\n[measure]\nenabled = false\n'
    )
    words = [Path(sys.executable).with_name("edge-convert"), "build", source]
    words += ["--recipe", tmp_path / "recipe.toml", "--out", tmp_path / "out", "--model", "m"]
    words += ["--version", 1, "--key", f"{hsm.uri()}&pin-source=file:{hsm.pin}"]
    said = subprocess.run(map(str, words), capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    public = read_public_key(parse_uri(hsm.uri()), None)
    bundle = verify_directory(tmp_path / "out" / "m-1", KeyRing([public]))
    assert bundle.signer == public.id
    for file in (tmp_path / "out" / "m-1").rglob("*.json"):
        assert PIN not in file.read_text()
        assert "pkcs11" not in file.read_text()


@pytest.mark.parametrize(
    ("token", "rest", "says"),
    [
        ("nobody", "object=release", "no token of"),
        ("twin", "object=release", "2 tokens of"),
        ("publisher;serial=0", "object=release", "no token of"),
        ("publisher;manufacturer=ACME", "object=release", "no token of"),
        ("publisher", "object=absent", "no public key fits: key 'absent' of token 'publisher'"),
        ("publisher", "object=release;id=%02", "no public key fits"),
        ("publisher", "object=double", "2 public keys fit"),
        ("publisher", "object=rsa", "not an ECDSA key"),
        ("publisher", "object=other", "curve secp256k1 is not supported"),
    ],
)
def test_a_uri_that_fits_no_single_usable_key_is_explained(
    hsm: SoftHsm, token: str, rest: str, says: str, capsys: Captured
) -> None:
    assert run("keys", "show", hsm.uri(token, rest), "--pin-file", hsm.pin) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err
    assert "edge-convert: hint: " in captured.err
    assert PIN not in captured.err


def test_a_token_is_found_by_its_serial_alone(hsm: SoftHsm) -> None:
    token = pkcs11.lib(str(hsm.library)).get_token(token_label="publisher")
    serial = token.serial.decode().strip()
    uri = parse_uri(f"pkcs11:serial={serial};object=release?module-path={hsm.library}")
    assert read_public_key(uri, None) == read_public_key(parse_uri(hsm.uri()), None)


def test_a_wrong_pin_is_refused_before_any_work(
    hsm: SoftHsm, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "pin").write_text("000000\n")
    assert run("keys", "show", hsm.uri(), "--pin-file", tmp_path / "pin") == 1
    captured = capsys.readouterr()
    assert "the PIN is wrong" in captured.err
    assert "000000" not in captured.err
    with open_token_key(parse_uri(hsm.uri()), PIN) as key:
        assert key.sign(b"and the right one works afterwards")


def test_a_pin_is_asked_for_once_and_only_from_a_file(hsm: SoftHsm, tmp_path: Path) -> None:
    def refused(key: str, **files: Path) -> str:
        with pytest.raises(OperatorError) as caught, open_signer(key, **files):
            raise AssertionError("opened")
        assert PIN not in caught.value.message + caught.value.hint
        return caught.value.message

    assert "with its PIN only" in refused(hsm.uri())
    assert "other processes" in refused(f"{hsm.uri()}&pin-value={PIN}")
    twice = f"{hsm.uri()}&pin-source=file:{hsm.pin}"
    assert "named twice" in refused(twice, pin_file=hsm.pin)
    assert "cannot read" in refused(hsm.uri(), pin_file=tmp_path / "absent")
    (tmp_path / "empty").touch()
    assert "is empty" in refused(hsm.uri(), pin_file=tmp_path / "empty")
    assert "--passphrase-file does not fit" in refused(hsm.uri(), passphrase_file=hsm.pin)
    PrivateKey.generate_p256().save(tmp_path / "k.pem")
    assert "--pin-file does not fit" in refused(str(tmp_path / "k.pem"), pin_file=hsm.pin)


def test_a_library_that_is_none_is_said_to_be(hsm: SoftHsm, tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("not a library")
    for module, says in (
        ("", "which library"),
        ("?module-path=/absent.so", "there is no PKCS#11 library /absent.so"),
        (f"?module-path={tmp_path}/text.so", "the token answers: OS exception while loading"),
        (f"?module-path={_sqlite3.__file__}", "the token answers: "),
    ):
        with pytest.raises(OperatorError, match=says):
            read_public_key(parse_uri(f"pkcs11:token=publisher;object=release{module}"), None)


def test_a_signature_that_the_public_key_does_not_fit_is_never_given_out(hsm: SoftHsm) -> None:
    """Two tokens' keys confused: the digest is signed by one, checked with the other's public."""
    with open_token_key(parse_uri(hsm.uri(rest="id=%01")), PIN) as key:
        stranger = type(key)(PrivateKey.generate_p256().public, key._sign_digest)
        with pytest.raises(OperatorError, match="does not match its public key"):
            stranger.sign(b"message")


def test_keys_are_not_made_in_tokens(hsm: SoftHsm, tmp_path: Path, capsys: Captured) -> None:
    assert run("keys", "new", hsm.uri()) == 1
    assert "the token's own tool" in capsys.readouterr().err


def test_a_missing_package_names_its_extra() -> None:
    script = (
        "import sys; sys.modules['pkcs11'] = None;"
        "from edgefleet_converter.cli import run;"
        "sys.exit(run(['keys', 'show', 'pkcs11:token=t;object=k?module-path=/x.so']))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=os.environ
    )
    assert said.returncode == 1
    assert "pip install 'edgefleet[converter,converter-pkcs11]'" in said.stderr
    assert "Traceback" not in said.stderr
