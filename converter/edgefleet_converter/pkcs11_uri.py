"""PKCS#11 URIs (RFC 7512): which key of which token, by which library. Text in, value out.

    pkcs11:token=publisher;object=release?module-path=/usr/lib/softhsm/libsofthsm2.so

A PIN is never taken from a URI: a command line is read by every process of the machine, and shells
remember it. `pin-source=file:/path` names a file that holds it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

from edgefleet_contract.errors import OperatorError

SCHEME: Final = "pkcs11:"
_PATH: Final = ("token", "serial", "manufacturer", "model", "object", "id", "type")
_QUERY: Final = ("module-path", "pin-source")
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """What a URI names. None is not said; what is said must match.

    `token`, `serial`, `manufacturer` and `model` choose the token; `label` and `id` (raw bytes)
    choose the key; `module` is the token's library; `pin_file` holds the PIN.
    """

    token: str | None
    serial: str | None
    manufacturer: str | None
    model: str | None
    label: str | None
    id: bytes | None
    module: Path | None
    pin_file: Path | None

    def __str__(self) -> str:
        """The token and the key, for messages."""
        token = self.token if self.token is not None else self.serial
        key = self.label if self.label is not None else (self.id or b"").hex()
        return f"key {key!r} of token {token!r}"


def is_pkcs11(text: str) -> bool:
    """Whether a text is meant as a PKCS#11 URI: schemes know no case."""
    return text[: len(SCHEME)].lower() == SCHEME


def parse_uri(text: str) -> Pkcs11Uri:
    """The token and key that a URI names.

    Raises:
        OperatorError: it is not such a URI, says something unknown or twice, does not say which
            token and which key, or holds a PIN.
    """
    if not is_pkcs11(text):
        raise OperatorError(f"{text[:40]!r} is not a PKCS#11 URI", hint="pkcs11:token=…;object=…")
    path, _, query = text[len(SCHEME) :].partition("?")
    if "pin-value" in _split(query, "&"):
        raise OperatorError(
            "a PIN in the URI stands on the command line, where other processes and the shell's "
            "history see it",
            hint="write it to a file that is yours alone: --pin-file PATH",
        )
    said = _known(_split(path, ";"), _PATH)
    asked = _known(_split(query, "&"), _QUERY)
    if said.get("type", "private") != "private":
        raise OperatorError(f"type={said['type'][:20]} cannot sign", hint="type=private")
    if not {"token", "serial"} & set(said) or not {"object", "id"} & set(said):
        raise OperatorError(
            "the URI does not say which key of which token", hint="pkcs11:token=…;object=…"
        )
    return Pkcs11Uri(
        token=_text(said, "token"),
        serial=_text(said, "serial"),
        manufacturer=_text(said, "manufacturer"),
        model=_text(said, "model"),
        label=_text(said, "object"),
        id=unquote_to_bytes(said["id"]) if "id" in said else None,
        module=_absolute(_text(asked, "module-path"), "module-path"),
        pin_file=_pin_file(_text(asked, "pin-source")),
    )


def _split(text: str, by: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(by) if text else ():
        name, equals, value = part.partition("=")
        if not equals or _PERCENT.search(value):
            raise OperatorError(f"{name[:40]!r} in the URI is not of the form name=value")
        if name in found:
            raise OperatorError(f"{name[:40]!r} stands twice in the URI")
        found[name] = value
    return found


def _known(found: dict[str, str], names: tuple[str, ...]) -> dict[str, str]:
    for name in found:
        if name not in names:
            raise OperatorError(
                f"{name[:40]!r} in the URI is not understood", hint=f"known: {', '.join(names)}"
            )
    return found


def _text(found: dict[str, str], name: str) -> str | None:
    if name not in found:
        return None
    try:
        return unquote(found[name], errors="strict")
    except UnicodeDecodeError:
        raise OperatorError(f"{name!r} in the URI is not UTF-8") from None


def _pin_file(source: str | None) -> Path | None:
    if source is None:
        return None
    if source.startswith("|"):
        raise OperatorError(
            "pin-source names a command, and none is run", hint="pin-source=file:/path"
        )
    return _absolute(source.removeprefix("file:").removeprefix("//"), "pin-source")


def _absolute(text: str | None, name: str) -> Path | None:
    if text is None:
        return None
    if not text.startswith("/") or "\0" in text:
        raise OperatorError(f"{name} in the URI is {text[:80]!r}, not an absolute path")
    return Path(text)
