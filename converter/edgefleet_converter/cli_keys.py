"""`edge-convert keys`: make and show publisher keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey, PublicKey
from edgefleet_converter.cli_options import AsJson, Passphrase, PinFile, print_json
from edgefleet_converter.pkcs11_uri import is_pkcs11
from edgefleet_converter.signing import read_public, read_secret

keys_app = typer.Typer(help="Make and show publisher keys.", no_args_is_help=True)


@keys_app.command("new")
def keys_new(
    path: Annotated[Path, typer.Argument(help="Where the private key goes; PATH.pub beside it.")],
    passphrase_file: Passphrase = None,
    as_json: AsJson = False,
) -> None:
    """Make a publisher key (ECDSA P-256): PATH, readable by you alone, and PATH.pub."""
    if is_pkcs11(str(path)):
        raise OperatorError(
            "keys in a token are made with the token's own tool",
            hint="for example pkcs11-tool --login --keypairgen --key-type EC:prime256v1 --label …",
        )
    public_path = path.with_name(path.name + ".pub")
    for place in (path, public_path):
        if place.exists():
            raise OperatorError(
                f"{place} exists already", hint="keys are never overwritten; choose another name"
            )
    key = PrivateKey.generate_p256()
    key.save(path, passphrase=None if passphrase_file is None else read_secret(passphrase_file))
    try:
        with public_path.open("x", encoding="ascii") as file:
            file.write(key.public.pem)
    except OSError as error:
        path.unlink()
        raise OperatorError(f"cannot write {public_path}: {error.strerror}") from None
    _print_key(key.public, as_json, private=str(path), public=str(public_path))


@keys_app.command("show")
def keys_show(
    key: Annotated[
        str,
        typer.Argument(
            metavar="PATH|URI", help="A public or private key (PEM), or pkcs11:token=…;object=…"
        ),
    ],
    passphrase_file: Passphrase = None,
    pin_file: PinFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a key's id and algorithm, never its secret; of a token's key the public half, as PEM."""
    public = read_public(key, passphrase_file=passphrase_file, pin_file=pin_file)
    _print_key(public, as_json)
    if is_pkcs11(key) and not as_json:
        typer.echo(public.pem, nl=False)


def _print_key(key: PublicKey, as_json: bool, **paths: str) -> None:
    if as_json:
        print_json({"id": key.id, "algorithm": key.algorithm, "pem": key.pem, **paths})
        return
    typer.echo(f"{key.id}  {key.algorithm}")
    for role, path in paths.items():
        typer.echo(f"{role}: {path}")
