"""Dataclasses to JSON values and back: the types are the schema, and the only copy of it.

`encode` and `decode` know the shapes that our documents use: str, int, float, bool, StrEnum,
nested dataclasses, `tuple[X, ...]`, `dict[str, X]` and `X | None`; an `object` is a JSON value that
somebody else will read. None is left out when written.
A field that would be a word of Python ends in `_`, which documents leave out (`lambda_`: `lambda`).
A field with a default may be absent; one whose metadata says `is_inner` is named to nobody.
Whether unknown fields are refused (files that a person or a
publisher wrote) or ignored (messages, so that versions can grow) is the caller's word.

Law: `decode(type(x), encode(x)) == x`.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from enum import StrEnum
from functools import cache

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import Malformed

T = typing.TypeVar("T")


def encode(value: object) -> Json:
    """The JSON value of a dataclass instance (or of anything that one may hold)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {_word(f): getattr(value, f.name) for f in dataclasses.fields(value)}
        return {name: encode(item) for name, item in fields.items() if item is not None}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} has no place in a document")


def decode(kind: type[T], value: Json, *, what: str, unknown: bool = False) -> T:
    """An instance of `kind` read from a JSON value.

    Args:
        kind: a dataclass.
        value: what the JSON parser gave.
        what: names the document in errors.
        unknown: True ignores fields that `kind` does not have; False refuses them.

    Raises:
        Malformed: naming the path and what was found there.
    """
    result = _decode(kind, value, what, unknown)
    return typing.cast("T", result)


def _word(field: dataclasses.Field[object]) -> str:
    """What a field is called in a document."""
    return field.name.removesuffix("_")


@cache
def _hints(kind: type) -> dict[str, object]:
    return typing.get_type_hints(kind)


@cache
def _origin(kind: object) -> object:
    return typing.get_origin(kind)


@cache
def _fields(kind: type) -> dict[str, dataclasses.Field[object]]:
    return {_word(f): f for f in dataclasses.fields(kind)}


def _decode(kind: object, value: Json, at: str, unknown: bool) -> object:
    if kind is object or type(value) is kind:  # most are: a text, a number
        return value
    origin = _origin(kind)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (arg for arg in typing.get_args(kind) if arg is not type(None))
        return _decode(inner, value, at, unknown)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(at, "a list", value)
        inner = typing.get_args(kind)[0]
        return tuple(_decode(inner, item, f"{at}[{i}]", unknown) for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(at, "an object", value)
        inner = typing.get_args(kind)[1]
        return {
            key: _decode(inner, item, f"{at}.{_short(key)}", unknown) for key, item in value.items()
        }
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _decode_fields(kind, value, at, unknown)
    return _decode_scalar(kind, value, at)


def _decode_fields(kind: type, value: Json, at: str, unknown: bool) -> object:
    if not isinstance(value, dict):
        raise _wrong(at, "an object", value)
    fields = _fields(kind)
    extra = sorted(set(value) - set(fields))
    if extra and not unknown:
        known = sorted(word for word, f in fields.items() if not f.metadata.get("is_inner"))
        near = difflib.get_close_matches(extra[0][:80], known, 1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise Malformed(
            f"{at}: unknown field {extra[0][:80]!r}",
            hint=f"{meant}known fields: {', '.join(known)}",
        )
    hints = _hints(kind)
    found: dict[str, object] = {}
    for name, field in fields.items():
        if name in value:
            found[field.name] = _decode(hints[field.name], value[name], f"{at}.{name}", unknown)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise Malformed(f"{at}: field {name!r} is missing")
    try:
        return kind(**found)
    except Malformed as error:
        raise Malformed(f"{at}: {error.message}", reason=error.reason, hint=error.hint) from None


def _decode_scalar(kind: object, value: Json, at: str) -> object:
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        try:
            return kind(value if isinstance(value, str) else "")
        except ValueError:
            words = ", ".join(kind)
            raise Malformed(f"{at}: {repr(value)[:80]} is not one of {words}") from None
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    is_text = kind is str or getattr(kind, "__supertype__", None) is str  # or a NewType of it
    if is_text and isinstance(value, str):
        return value
    name = getattr(kind, "__name__", str(kind))
    raise _wrong(at, {"str": "a string", "int": "an integer"}.get(name, name), value)


def _short(key: str) -> str:
    """A stranger's key as a message may show it."""
    return key if key.isidentifier() and len(key) <= 80 else ascii(key[:80])


def _wrong(at: str, wanted: str, value: Json) -> Malformed:
    return Malformed(f"{at}: expected {wanted}, found {type(value).__name__}")
