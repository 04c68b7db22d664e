"""`fleet keys`: the root ceremony, rotation, revocation. Keys are read on this machine only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from edgefleet_contract.bundle import Digest, is_digest
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey, PublicKey
from edgefleet_fleet import cli_show as show
from edgefleet_fleet.cli_options import DEFAULT_URL, Data, Json, Url, client

keys = typer.Typer(help="Whom devices believe: roots, publishers, directors.", no_args_is_help=True)
rotate = typer.Typer(help="Put a new key in the place of one.", no_args_is_help=True)
revoke = typer.Typer(help="Take trust back.", no_args_is_help=True)
keys.add_typer(rotate, name="rotate")
keys.add_typer(revoke, name="revoke")

Key = Annotated[Path, typer.Option("--key", help="The publisher's private key (PEM).")]
Passphrase = Annotated[
    Path | None, typer.Option("--passphrase-file", help="The passphrase: the file's first line.")
]
Roots = Annotated[list[Path], typer.Option("--root", help="A root key (PEM); repeatable.")]


def load_key(path: Path, passphrase_file: Path | None) -> PrivateKey:
    """A private key from a file, with its passphrase from another."""
    return PrivateKey.load(path, passphrase=read_passphrase(passphrase_file))


def read_passphrase(path: Path | None) -> bytes | None:
    """The first line of a file; None without one."""
    if path is None:
        return None
    try:
        return path.read_bytes().splitlines()[0]
    except (OSError, IndexError) as error:
        raise OperatorError(f"cannot read the passphrase in {path}: {error}") from None


@keys.command("init")
def init(
    out: Annotated[Path, typer.Option(help="The folder for the root keys: take it offline.")],
    publisher: Annotated[Path, typer.Option(help="The publisher's private key (PEM).")],
    roots: Annotated[int, typer.Option(min=1, max=16, help="How many root keys are made.")] = 3,
    threshold: Annotated[int, typer.Option(min=1, max=16, help="How many must sign a root.")] = 2,
    passphrase_file: Passphrase = None,
    root_passphrase_file: Annotated[
        Path | None, typer.Option(help="Protects the root keys: the file's first line.")
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Hold the root ceremony: make root keys, and say who publishes. Once in a fleet's life."""
    from edgefleet_fleet import ceremony

    if threshold > roots:
        raise OperatorError(f"{threshold} of {roots} root keys cannot sign")
    room = client(url, data)
    identity = room.get("/trust/identity")
    if identity["has_root"]:
        raise OperatorError("this fleet has a root already", hint="fleet keys rotate --help")
    signer = load_key(publisher, passphrase_file)
    made = ceremony.make_root_keys(out, roots, passphrase=read_passphrase(root_passphrase_file))
    view = room.post("/trust", ceremony.begin(identity, made, threshold, signer))
    _print(view, as_json=as_json)
    show.talk(f"{roots} root keys are in {out}: take them offline, each to another place")


@keys.command("show")
def show_keys(as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None) -> None:
    """Who may sign what, and until when that holds."""
    _print(client(url, data).get("/trust"), as_json=as_json)


@keys.command("refresh")
def refresh(
    key: Key,
    passphrase_file: Passphrase = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Say the same again for another 90 days."""
    from edgefleet_fleet import ceremony

    signer = load_key(key, passphrase_file)
    _publish(url, data, lambda trust: ceremony.refresh(trust, signer), as_json=as_json)


@keys.command("floor")
def floor(
    model: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[int, typer.Argument(help="The lowest version that may run.", min=1)],
    key: Key,
    passphrase_file: Passphrase = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Forbid every version of a model below a floor; floors only rise."""
    from edgefleet_fleet import ceremony

    signer = load_key(key, passphrase_file)
    _publish(
        url, data, lambda trust: ceremony.set_floor(trust, signer, model, version), as_json=as_json
    )


@keys.command("add-publisher")
def add_publisher(
    pem: Annotated[Path, typer.Argument(help="The publisher's public key.", metavar="PUB.pem")],
    root: Roots,
    root_passphrase_file: Passphrase = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Let another key publish: a new root, signed by a threshold of root keys."""
    try:
        added = PublicKey.from_pem(pem.read_text("utf-8"), what=str(pem))
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"cannot read {pem}: {error}") from None
    if not added.algorithm.startswith("ECDSA"):
        raise OperatorError(f"a publisher has an ECDSA key, this one is {added.algorithm}")
    _new_root(
        *(url, data, root, root_passphrase_file),
        lambda held: replace(held, publishers=(*held.publishers, added)),
        as_json=as_json,
    )


@rotate.command("root")
def rotate_root(
    out: Annotated[Path, typer.Option(help="The folder for the new root keys.")],
    root: Roots,
    root_passphrase_file: Passphrase = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Make as many new root keys as there are; the old ones sign for the last time."""
    from edgefleet_fleet import ceremony

    room = client(url, data)
    trust = room.get("/trust")
    passphrase = read_passphrase(root_passphrase_file)
    old = [PrivateKey.load(path, passphrase=passphrase) for path in root]
    made = ceremony.make_root_keys(out, len(trust["roots"]), passphrase=passphrase)
    fresh = tuple(key.public for key in made)
    body = ceremony.next_root(trust, [*old, *made], lambda held: replace(held, roots=fresh))
    _print(room.post("/trust/root", body), as_json=as_json)


@rotate.command("director")
def rotate_director(
    key: Key,
    passphrase_file: Passphrase = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Let the control room sign with a new key, and with no other."""
    from edgefleet_fleet import ceremony

    signer = load_key(key, passphrase_file)
    fresh = client(url, data).post("/trust/director")["pem"]
    _publish(
        url, data, lambda trust: ceremony.set_directors(trust, signer, (fresh,)), as_json=as_json
    )


@rotate.command("repository")
def rotate_repository(
    root: Roots,
    root_passphrase_file: Passphrase = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Let the control room keep metadata fresh with a new key: after a break-in, do this first."""
    fresh = PublicKey.from_pem(client(url, data).post("/trust/repository")["pem"])
    _new_root(
        *(url, data, root, root_passphrase_file),
        lambda held: replace(held, repository=fresh),
        as_json=as_json,
    )


@revoke.command("bundle")
def revoke_bundle(
    bundle: Annotated[str, typer.Argument(help="model-version, or the digest of bundle.json.")],
    key: Key,
    passphrase_file: Passphrase = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Forbid a bundle: devices that run it go back to what they ran before, or stop it."""
    from edgefleet_fleet import ceremony

    signer = load_key(key, passphrase_file)
    digest = bundle
    if not is_digest(digest):
        digest = client(url, data).get(f"/bundles/{show.quote(bundle)}")["digest"]
    _publish(
        *(url, data),
        lambda trust: ceremony.revoke_bundle(trust, signer, Digest(digest)),
        as_json=as_json,
    )


@revoke.command("publisher")
def revoke_publisher(
    key_id: Annotated[str, typer.Argument(help="The key's id, or its beginning.")],
    root: Roots,
    root_passphrase_file: Passphrase = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Take a publisher's key back; another must have published since it was added."""
    _new_root(
        *(url, data, root, root_passphrase_file),
        lambda held: replace(held, publishers=_without(held.publishers, key_id)),
        as_json=as_json,
    )


@revoke.command("director")
def revoke_director(
    key_id: Annotated[str, typer.Argument(help="The key's id, or its beginning.")],
    key: Key,
    passphrase_file: Passphrase = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Take a director's key back."""
    from edgefleet_fleet import ceremony

    signer = load_key(key, passphrase_file)

    def body(trust: Any) -> dict[str, object]:
        listed = tuple(PublicKey.from_pem(item["pem"]) for item in trust["directors"])
        left = tuple(item.pem for item in _without(listed, key_id))
        return ceremony.set_directors(trust, signer, left)

    _publish(url, data, body, as_json=as_json)


def _without(held: tuple[PublicKey, ...], key_id: str) -> tuple[PublicKey, ...]:
    left = tuple(key for key in held if not key.id.startswith(key_id))
    if len(left) != len(held) - 1:
        raise OperatorError(f"{key_id!r} is the beginning of {len(held) - len(left)} keys, not one")
    return left


def _publish(
    url: str, data: Path | None, body: Callable[[Any], dict[str, object]], *, as_json: bool
) -> None:
    room = client(url, data)
    _print(room.post("/trust/targets", body(room.get("/trust"))), as_json=as_json)


def _new_root(
    url: str,
    data: Path | None,
    root: list[Path],
    passphrase_file: Path | None,
    change: Callable[[Any], Any],
    *,
    as_json: bool,
) -> None:
    from edgefleet_fleet import ceremony

    room = client(url, data)
    passphrase = read_passphrase(passphrase_file)
    signers = [PrivateKey.load(path, passphrase=passphrase) for path in root]
    body = ceremony.next_root(room.get("/trust"), signers, change)
    _print(room.post("/trust/root", body), as_json=as_json)


def _print(view: Any, *, as_json: bool) -> None:
    hidden = ("root", "targets", "policy")
    if as_json:
        show.json({key: value for key, value in view.items() if key not in hidden})
        return
    show.trust(view)
