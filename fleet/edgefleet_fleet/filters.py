"""The language in which devices are meant: parsed, matched, and written again. No I/O.

    all
    hw=arm64,model=digits@2|digits@3
    tag.site=hall3 and (hardware_class in (rpi4, rpi5) or cpus>=8) and not id=spare-*
    group:canaries or model.digits<3

`and` binds closer than `or`, `not` closest; a comma outside of `in (…)` is an `and`. `*` and `?`
stand for any text and any character. A test of what a device does not have fails, so its `not`
holds. What is wrong is refused with the place where it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, NoReturn, TypeAlias

from edgefleet_contract.bundle import is_name
from edgefleet_contract.errors import Malformed

ALL: Final = "all"
PLAIN_KEYS: Final = (
    *("id", "hw", "hardware_class", "arch", "board", "cpu", "feature", "os", "kernel", "python"),
    *("agent", "engine", "accelerator", "model", "phase", "online"),
)
NUMBER_KEYS: Final = ("cpus", "memory_mib", "disk_mib")
FAMILIES: Final = ("tag", "engine", "model")
KEYS: Final = (*PLAIN_KEYS, *NUMBER_KEYS, "tag.KEY", "engine.NAME", "model.SLOT")
MAX_CHARS: Final = 4000
MAX_DEPTH: Final = 32
MAX_TESTS: Final = 500
_WORDS: Final = ("and", "or", "not", "in")
_MANY: Final = frozenset({"engine", "accelerator", "model", "feature"})
_KEY: Final = re.compile(r"[a-z_]+(?:\.[A-Za-z0-9][A-Za-z0-9._-]*)?")
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<quoted>"(?:[^"\\]|\\["\\])*")|(?P<sign><=|>=|!=|==|[=<>(),|])"""
    r"""|(?P<word>[^\s"=<>!(),|]+)|(?P<wrong>\S))"""
)
_STAGES: Final = {"dev": 0, "alpha": 1, "a": 1, "beta": 2, "b": 2, "pre": 3, "rc": 3}
_VERSION: Final = re.compile(
    rf"v?(?P<numbers>[0-9]{{1,18}}(?:\.[0-9]{{1,18}})*)"
    rf"(?:[._-]?(?P<stage>{'|'.join(_STAGES)})[._-]?(?P<nth>[0-9]{{0,18}})(?![a-z]))?"
)
_PLAIN: Final = re.compile(r"[^\s\"=<>!(),|]+")


class Op(StrEnum):
    """How a value is held against another."""

    IS = "="
    IS_NOT = "!="
    BELOW = "<"
    AT_MOST = "<="
    ABOVE = ">"
    AT_LEAST = ">="


@dataclass(frozen=True, slots=True)
class Traits:
    """What a filter can ask of a device. `models` holds `name` and `name@version` of each;
    `engine_versions` and `model_versions` are by runtime and by slot."""

    id: str
    hw: str = ""
    arch: str = ""
    board: str = ""
    engines: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    online: bool = False
    hardware_class: str = ""
    cpu: str = ""
    features: frozenset[str] = frozenset()
    os: str = ""
    kernel: str = ""
    python: str = ""
    agent: str = ""
    phase: str = ""
    accelerators: frozenset[str] = frozenset()
    cpus: int = 0
    memory_mib: int = 0
    disk_mib: int = 0
    engine_versions: Mapping[str, str] = field(default_factory=dict)
    model_versions: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def values(self, key: str) -> frozenset[str]:
        """What the device answers to a key of a filter; nothing where it does not say."""
        family, _, name = key.partition(".")
        match family:
            case "tag":
                return _some(self.tags.get(name, ""))
            case "engine":
                return _some(self.engine_versions.get(name, "")) if name else self.engines
            case "model":
                return _some(self.model_versions.get(name, "")) if name else self.models
            case "feature":
                return self.features
            case "accelerator":
                return self.accelerators
            case "online":
                return frozenset({"true" if self.online else "false"})
            case "cpus" | "memory_mib" | "disk_mib":
                return _some(str(getattr(self, key) or ""))
            case _:
                return _some(str(getattr(self, key)))


def _some(value: str) -> frozenset[str]:
    return frozenset({value}) if value else frozenset()


@dataclass(frozen=True, slots=True)
class Test:
    """A key, and the values of which one must hold (of `!=`: none may be)."""

    __test__ = False  # pytest: it is none of yours

    key: str
    op: Op
    values: tuple[str, ...]

    def matches(self, traits: Traits) -> bool:
        """Whether it holds for a device."""
        found = traits.values(self.key)
        match self.op:
            case Op.IS:
                return any(is_like(item, value) for item in found for value in self.values)
            case Op.IS_NOT:
                return not any(is_like(item, value) for item in found for value in self.values)
            case _:
                return any(_holds(item, self.op, value) for item in found for value in self.values)

    def __str__(self) -> str:
        return f"{self.key}{self.op}{'|'.join(_written(value) for value in self.values)}"


@dataclass(frozen=True, slots=True)
class Group:
    """The devices of a stored filter; one that was not looked up matches none."""

    name: str

    def matches(self, _traits: Traits) -> bool:
        """None: `resolve` puts the stored filter in its place."""
        return False

    def __str__(self) -> str:
        return f"group:{self.name}"


@dataclass(frozen=True, slots=True)
class Not:
    """What another does not mean."""

    part: Expression

    def matches(self, traits: Traits) -> bool:
        """Whether the other does not."""
        return not self.part.matches(traits)

    def __str__(self) -> str:
        return f"not {_inside(self.part, And | Or)}"


@dataclass(frozen=True, slots=True)
class And:
    """What all of these mean; of none: every device."""

    parts: tuple[Expression, ...] = ()

    def matches(self, traits: Traits) -> bool:
        """Whether all do."""
        return all(part.matches(traits) for part in self.parts)

    def __str__(self) -> str:
        if not self.parts:
            return ALL
        return " and ".join(_inside(part, And | Or) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Or:
    """What one of these means."""

    parts: tuple[Expression, ...]

    def matches(self, traits: Traits) -> bool:
        """Whether one does."""
        return any(part.matches(traits) for part in self.parts)

    def __str__(self) -> str:
        return " or ".join(_inside(part, Or) for part in self.parts)


Expression: TypeAlias = Test | Group | Not | And | Or


@dataclass(frozen=True, slots=True)
class Filter:
    """Which devices are meant."""

    wanted: Expression = And()

    def matches(self, traits: Traits) -> bool:
        """Whether a device is."""
        return self.wanted.matches(traits)

    @property
    def groups(self) -> frozenset[str]:
        """The stored filters that it names."""
        return frozenset(part.name for part in _parts(self.wanted) if isinstance(part, Group))

    def __str__(self) -> str:
        return str(self.wanted)


def parse_filter(text: str) -> Filter:
    """The filter that a text spells.

    Law: `parse_filter(str(f)) == f`.

    Raises:
        Malformed: it spells none; the message has the place.
    """
    if len(text) > MAX_CHARS:
        raise Malformed(f"filter: {len(text)} characters, at most {MAX_CHARS} are read")
    return Filter(_Parser(text).whole())


def resolve(found: Filter, groups: Mapping[str, Filter], _inside: tuple[str, ...] = ()) -> Filter:
    """A filter with every group's own filter in the group's place.

    Raises:
        Malformed: a group that is not known, or that means itself.
    """

    def put(part: Expression) -> Expression:
        match part:
            case Group(name):
                if name in _inside:
                    raise Malformed(f"group {name!r} means itself: {' -> '.join((*_inside, name))}")
                if name not in groups:
                    raise Malformed(f"there is no group {name!r}", hint="fleet groups list")
                return resolve(groups[name], groups, (*_inside, name)).wanted
            case Not(inner):
                return Not(put(inner))
            case And(parts):
                return replace(part, parts=tuple(put(each) for each in parts))
            case Or(parts):
                return replace(part, parts=tuple(put(each) for each in parts))
            case Test():
                return part

    return Filter(put(found.wanted))


def is_like(text: str, pattern: str) -> bool:
    """Whether a text is what a pattern says; `*` is any text, `?` any character.

    >>> is_like("hall-3", "hall-?") and is_like("rpi4", "*") and not is_like("rpi5", "rpi4*")
    True
    """
    at, here, star, mark = 0, 0, -1, 0
    while at < len(text):
        if here < len(pattern) and pattern[here] == "*":
            star, mark, here = here, at, here + 1
        elif here < len(pattern) and pattern[here] in ("?", text[at]):
            at, here = at + 1, here + 1
        elif star >= 0:
            mark += 1
            at, here = mark, star + 1
        else:
            return False
    return all(sign == "*" for sign in pattern[here:])


def version_key(text: str) -> tuple[tuple[int, ...], int, int]:
    """A version as what versions are ordered by: its leading numbers, then whether it came before
    these were released (`rc1`, `dev3`). What else follows says nothing; it begins with a number.

    >>> version_key("1.10") > version_key("1.9") > version_key("1.9rc1") > version_key("1.9a2")
    True
    >>> version_key("2.0") == version_key("2") == version_key("2.0+rpi1")
    True
    """
    match = _VERSION.match(text.lower())
    assert match is not None, text
    numbers = [int(part) for part in match["numbers"].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    stage = match["stage"]
    return tuple(numbers), _STAGES[stage] if stage else len(_STAGES), int(match["nth"] or 0)


def _holds(found: str, op: Op, value: str) -> bool:
    if not _VERSION.match(found.lower()):
        return False
    one, other = version_key(found), version_key(value)
    match op:
        case Op.BELOW:
            return one < other
        case Op.AT_MOST:
            return one <= other
        case Op.ABOVE:
            return one > other
        case _:
            return one >= other


def _parts(found: Expression) -> Iterator[Expression]:
    yield found
    match found:
        case Not(part):
            yield from _parts(part)
        case And(parts) | Or(parts):
            for part in parts:
                yield from _parts(part)


def _inside(part: Expression, braced: object) -> str:
    text = str(part)
    is_braced = isinstance(part, braced) and text != ALL  # type: ignore[arg-type] # a union of types
    return f"({text})" if is_braced else text


def _written(value: str) -> str:
    if _PLAIN.fullmatch(value) and value not in _WORDS:
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # word, quoted, sign, end
    text: str
    at: int
    end: int


class _Parser:
    """Recursive descent over tokens; every refusal says where."""

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
        if token.kind != "word" or token.text in _WORDS:
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
        elif first.kind == "word" and first.text not in _WORDS:
            end = first.end
            while self._peek().kind == "word" and self._peek().text not in _WORDS:
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
        if op not in (Op.IS, Op.IS_NOT) and not _VERSION.match(value.lower()):
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
