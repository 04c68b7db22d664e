"""Strict JSON: one value has one spelling, and nothing else is read.

`render` writes RFC 8785 (JCS) for the values that our documents may hold: integers below 2^53,
strings, booleans, lists and objects. `parse` accepts exactly what `render` writes:
`render(parse(raw)) == raw` for every `raw` that it does not refuse. `parse_message` is the same
gate without the canonical spelling and with floats and null, for telemetry and for JSON that
others wrote.

Sizes and depths are capped before the JSON parser sees a byte.
"""

from __future__ import annotations

import json
import math
import re
from typing import Final, NoReturn, TypeAlias

from edgefleet_contract.errors import Malformed

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 12
MAX_MESSAGE_DEPTH: Final = 32
MAX_INT: Final = 2**53

# Possessive, and a string without an end is one token: each byte is looked at once.
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def render(value: Json) -> bytes:
    """The RFC 8785 bytes of a value.

    Raises:
        Malformed: the value holds a float, null, an integer of 2^53 or more, or a lone surrogate.
    """
    _check(value)
    return _encode(value)


def parse(raw: bytes, *, what: str, max_bytes: int = MAX_BYTES) -> Json:
    """The value that canonical bytes spell; `what` names the document in errors.

    Raises:
        Malformed: too large, too deep, not JSON, or not the canonical spelling.
    """
    value = _load(raw, what=what, max_bytes=max_bytes, max_depth=MAX_DEPTH)
    try:
        canonical = render(value)
    except Malformed as error:
        raise Malformed(f"{what}: {error.message}") from None
    if canonical != raw:
        raise Malformed(f"{what}: not in canonical form (RFC 8785)")
    return value


def parse_message(raw: bytes, *, what: str, max_bytes: int = MAX_BYTES) -> Json:
    """The value of JSON in any spelling, under the same caps; floats and null are allowed.

    Raises:
        Malformed: too large, too deep, not JSON, duplicate keys, NaN, huge integers, bad UTF-8,
            a lone surrogate.
    """
    return _load(raw, what=what, max_bytes=max_bytes, max_depth=MAX_MESSAGE_DEPTH)


def _encode(value: Json) -> bytes:
    # RFC 8785 sorts keys by UTF-16 code units, json by code points: they differ above the BMP.
    def ordered(node: Json) -> Json:
        if isinstance(node, dict):
            return {
                k: ordered(node[k]) for k in sorted(node, key=lambda key: key.encode("utf-16-be"))
            }
        if isinstance(node, list):
            return [ordered(item) for item in node]
        return node

    text = json.dumps(ordered(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8")


def _check(value: Json) -> None:
    match value:
        case bool():
            return
        case int():
            if abs(value) >= MAX_INT:
                raise Malformed(f"integer out of range: {str(value)[:20]}")
        case str():
            _check_text(value)
        case list():
            for item in value:
                _check(item)
        case dict():
            for key, item in value.items():
                _check_text(key)
                _check(item)
        case _:
            raise Malformed(f"value of type {type(value).__name__} is not allowed")


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise Malformed("a string holds a lone surrogate") from None


def _load(raw: bytes, *, what: str, max_bytes: int, max_depth: int) -> Json:
    if len(raw) > max_bytes:
        raise Malformed(f"{what}: {len(raw)} bytes, at most {max_bytes} are read")
    depth = deepest = 0
    for token in _TOKENS.finditer(raw):
        first = token[0][:1]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"]}":
            depth -= 1
    if deepest > max_depth:
        raise Malformed(f"{what}: nested {deepest} deep, at most {max_depth} is read")
    try:
        value: Json = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_small_int,
            parse_float=_finite,
            parse_constant=_no_constant,
        )
    except UnicodeDecodeError:
        raise Malformed(f"{what}: not UTF-8") from None
    except Malformed as error:
        raise Malformed(f"{what}: {error.message}") from None
    except ValueError as error:
        raise Malformed(f"{what}: not JSON: {error}") from None
    if _SURROGATE.search(raw) and _has_lone_surrogate(value):
        raise Malformed(f"{what}: a string holds a lone surrogate")
    return value


def _has_lone_surrogate(value: Json) -> bool:
    """Whether a string of a value cannot be written as UTF-8. Only an escape can bring one in."""
    if isinstance(value, dict):
        return any(_has_lone_surrogate(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_lone_surrogate(item) for item in value)
    return isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value)


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for key, value in pairs:
        _check_text(key)
        if key in found:
            raise Malformed(f"duplicate key {key[:40]!r}")
        found[key] = value
    return found


def _small_int(text: str) -> int:
    if len(text) > 17 or abs(int(text)) >= MAX_INT:
        raise Malformed(f"integer out of range: {text[:20]}")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Malformed(f"number out of range: {text[:20]}")
    return value


def _no_constant(text: str) -> NoReturn:
    raise Malformed(f"{text} is not JSON")
