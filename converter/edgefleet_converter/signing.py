"""What `--key` names: a PEM file, or a key in a PKCS#11 token. Secrets come from files alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.keys import PrivateKey, PublicKey, Signer
from edgefleet_converter.pkcs11_uri import Pkcs11Uri, is_pkcs11, parse_uri


@contextmanager
def open_signer(
    key: str, *, passphrase_file: Path | None = None, pin_file: Path | None = None
) -> Iterator[Signer]:
    """The publisher's key; a token is open for as long as the context is.

    Raises:
        OperatorError: the key, its passphrase or its PIN cannot be had.
    """
    if not is_pkcs11(key):
        _refuse(pin_file, "--pin-file", "a key in a file has a passphrase: --passphrase-file")
        passphrase = None if passphrase_file is None else read_secret(passphrase_file)
        yield PrivateKey.load(Path(key), passphrase=passphrase)
        return
    from edgefleet_converter.token_key import open_token_key

    _refuse(passphrase_file, "--passphrase-file", "a key in a token has a PIN: --pin-file")
    uri = parse_uri(key)
    pin = _pin(uri, pin_file)
    if pin is None:
        raise OperatorError(
            f"{uri}: a token signs with its PIN only",
            hint="--pin-file PATH, or pin-source=file:/path in the URI",
        )
    with open_token_key(uri, pin) as token_key:
        yield token_key


def read_public(
    key: str, *, passphrase_file: Path | None = None, pin_file: Path | None = None
) -> PublicKey:
    """The public half of what a private or public PEM file holds, or a token.

    Raises:
        OperatorError: it cannot be had.
    """
    if is_pkcs11(key):
        from edgefleet_converter.token_key import read_public_key

        _refuse(passphrase_file, "--passphrase-file", "a key in a token has a PIN: --pin-file")
        uri = parse_uri(key)
        return read_public_key(uri, _pin(uri, pin_file))
    if b"PRIVATE KEY" in read_file(Path(key)):
        with open_signer(key, passphrase_file=passphrase_file, pin_file=pin_file) as signer:
            return signer.public
    return read_public_file(Path(key))


def read_public_file(path: Path) -> PublicKey:
    """The key in a PEM file.

    Raises:
        OperatorError: it cannot be read, or holds none.
    """
    try:
        return PublicKey.from_pem(read_file(path), what=str(path))
    except Malformed as error:
        raise OperatorError(error.message, hint="a PEM public key, such as PATH.pub") from None


def read_secret(path: Path) -> bytes:
    """The first line of a file: a passphrase or a PIN.

    Raises:
        OperatorError: it cannot be read, or is empty.
    """
    lines = read_file(path).splitlines()
    if not lines or not lines[0]:
        raise OperatorError(f"the file {path} is empty", hint="its first line is the secret")
    return lines[0]


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        OperatorError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror}") from None


def _pin(uri: Pkcs11Uri, pin_file: Path | None) -> str | None:
    if pin_file is not None and uri.pin_file is not None:
        raise OperatorError("the PIN is named twice: by --pin-file and by pin-source in the URI")
    path = pin_file or uri.pin_file
    if path is None:
        return None
    try:
        return read_secret(path).decode("utf-8")
    except UnicodeDecodeError:
        raise OperatorError(f"the PIN in {path} is not UTF-8") from None


def _refuse(option: Path | None, name: str, hint: str) -> None:
    if option is not None:
        raise OperatorError(f"{name} does not fit this key", hint=hint)
