"""Reads filters: recursive descent over tokens. What is wrong is refused with its place. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NoReturn

from edgefleet_contract.bundle import is_name
from edgefleet_contract.errors import Malformed
from edgefleet_fleet.filter_values import Op, is_version
from edgefleet_fleet.filters import ALL, WORDS, And, Expression, Filter, Group, Not, Or, Test
from edgefleet_fleet.traits import FAMILIES, KEYS, NUMBER_KEYS, PLAIN_KEYS

MAX_CHARS: Final = 4000
MAX_DEPTH: Final = 32
MAX_TESTS: Final = 500
_MANY: Final = frozenset({"engine", "accelerator", "model", "feature"})
_KEY: Final = re.compile(r"[a-z_]+(?:\.[A-Za-z0-9][A-Za-z0-9._-]*)?")
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<quoted>"(?:[^"\\]|\\["\\])*")|(?P<sign><=|>=|!=|==|[=<>(),|])"""
    r"""|(?P<word>[^\s"=<>!(),|]+)|(?P<wrong>\S))"""
)


def parse_filter(text: str) -> Filter:
    """The filter that a text spells.

    Law: `parse_filter(str(f)) == f`.

    Raises:
        Malformed: it spells none; the message has the place.
    """
    if len(text) > MAX_CHARS:
        raise Malformed(f"filter: {len(text)} characters, at most {MAX_CHARS} are read")
    return Filter(_Parser(text).whole())


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # word, quoted, sign, end
    text: str
    at: int
    end: int


class _Parser:
    """Takes tokens one by one; every refusal says where."""

    def __init__(self, text: str) -> None:
        self._text, self._next, self._depth, self._tests = text, 0, 0, 0
        self._tokens = list(self._read())

    def whole(self) -> Expression:
        found = self._or()
        if self._peek().kind != "end":
            self._refuse(self._peek(), "'and', 'or' or the end is expected")
        return found

    def _read(self) -> Iterator[_Token]:
        at = 0
        while match := _TOKEN.match(self._text, at):
            kind, at = str(match.lastgroup), match.end()
            start = match.start(kind)
            if kind == "wrong":
                sign = match[kind]
                why = "a quote without an end" if sign == '"' else f"{sign!r} is not understood"
                self._refuse(_Token(kind, sign, start, at), why)
            yield _Token(kind, match[kind], start, at)
        yield _Token("end", "", len(self._text.rstrip()), len(self._text))

    def _or(self) -> Expression:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(self._peek(), f"nested more than {MAX_DEPTH} deep")
        parts = [self._and()]
        while self._took_word("or"):
            parts.append(self._and())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _and(self) -> Expression:
        parts = [self._not()]
        while self._took_word("and") or self._took_sign(","):
            token = self._peek()
            part = self._not()
            if _contradicts(part, parts):
                self._refuse(token, "a device has one value of this: write a|b for either")
            parts.append(part)
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _not(self) -> Expression:
        negations = 0
        while self._took_word("not"):
            negations += 1
            if negations > MAX_DEPTH:
                self._refuse(self._peek(), f"nested more than {MAX_DEPTH} deep")
        found = self._one()
        for _ in range(negations):
            found = Not(found)
        return found

    def _one(self) -> Expression:
        if self._took_sign("("):
            found = self._or()
            if not self._took_sign(")"):
                self._refuse(self._peek(), "')' is expected")
            return found
        token = self._take()
        if token.kind != "word" or token.text in WORDS:
            self._refuse(token, "a key, 'not' or '(' is expected")
        if token.text == ALL and self._peek().text not in (*Op, "==", "in"):
            return And()
        if token.text.startswith("group:"):
            name = token.text.removeprefix("group:")
            if not is_name(name):
                self._refuse(token, "this names no group")
            return Group(name)
        return self._test(token)

    def _test(self, key: _Token) -> Expression:
        self._tests += 1
        if self._tests > MAX_TESTS:
            self._refuse(key, f"more than {MAX_TESTS} tests")
        family, _, name = key.text.partition(".")
        known = family in FAMILIES if name else family in (*PLAIN_KEYS, *NUMBER_KEYS)
        if not known or not _KEY.fullmatch(key.text):
            self._refuse(key, f"{key.text[:40]!r} is no key")
        if self._took_word("in"):
            return Test(key.text, Op.IS, self._list(key))
        if self._peek().text == "not" and self._peek(1).text == "in":
            self._next += 2
            return Test(key.text, Op.IS_NOT, self._list(key))
        sign = self._take()
        text = "=" if sign.text == "==" else sign.text
        if sign.kind != "sign" or text not in set(Op):
            self._refuse(
                sign, f"'=', '!=', '<', '<=', '>', '>=' or 'in' is expected after {key.text}"
            )
        op = Op(text)
        values = [self._value(key, op)]
        while self._took_sign("|"):
            values.append(self._value(key, op))
        return Test(key.text, op, tuple(values))

    def _list(self, key: _Token) -> tuple[str, ...]:
        if not self._took_sign("("):
            self._refuse(self._peek(), "'(' is expected after 'in'")
        values = [self._value(key, Op.IS)]
        while self._took_sign(","):
            values.append(self._value(key, Op.IS))
        if not self._took_sign(")"):
            self._refuse(self._peek(), "',' or ')' is expected")
        return tuple(values)

    def _value(self, key: _Token, op: Op) -> str:
        """A quoted text, or words up to what cannot be part of one: `Raspberry Pi 5`."""
        first = self._take()
        if first.kind == "quoted":
            value = re.sub(r"\\(.)", r"\1", first.text[1:-1])
        elif first.kind == "word" and first.text not in WORDS:
            end = first.end
            while self._peek().kind == "word" and self._peek().text not in WORDS:
                end = self._take().end
            value = self._text[first.at : end]
        else:
            value = ""
        if not value:
            self._refuse(first, f"a value of {key.text} is expected")
        if key.text == "online" and value not in ("true", "false"):
            self._refuse(first, "online is true or false")
        if key.text in NUMBER_KEYS and not value.isdecimal():
            self._refuse(first, f"{key.text} is a whole number")
        if op not in (Op.IS, Op.IS_NOT) and not is_version(value):
            self._refuse(first, "only numbers and versions are more or less than others")
        return value

    def _peek(self, ahead: int = 0) -> _Token:
        return self._tokens[min(self._next + ahead, len(self._tokens) - 1)]

    def _take(self) -> _Token:
        token = self._peek()
        self._next += 1
        return token

    def _took_word(self, text: str) -> bool:
        return self._took("word", text)

    def _took_sign(self, text: str) -> bool:
        return self._took("sign", text)

    def _took(self, kind: str, text: str) -> bool:
        found = self._peek().kind == kind and self._peek().text == text
        self._next += found
        return found

    def _refuse(self, token: _Token, why: str) -> NoReturn:
        before = self._text[max(0, token.at - 40) : token.at]
        after = self._text[token.at : token.at + 40]
        raise Malformed(
            f"filter, character {token.at + 1}: {why}: {before}>>>{after}",
            hint=f"keys: {', '.join(KEYS)}; for example: hw=arm64 and tag.site in (hall1, hall2)",
        )


def _contradicts(part: Expression, others: list[Expression]) -> bool:
    """Whether one thing is said to have two values: nobody would ever be meant."""
    return (
        isinstance(part, Test)
        and part.op is Op.IS
        and part.key not in _MANY
        and any(
            isinstance(other, Test) and other.op is Op.IS and other.key == part.key
            for other in others
        )
    )
