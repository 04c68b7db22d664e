"""The language in which devices are meant: what can be said, whom it means, how it is written.

    all
    hw=arm64,model=digits@2|digits@3
    tag.site=hall3 and (hardware_class in (rpi4, rpi5) or cpus>=8) and not id=spare-*
    group:canaries or model.digits<3

`and` binds closer than `or`, `not` closest; a comma outside of `in (…)` is an `and`. `*` and `?`
stand for any text and any character. A test of what a device does not have fails, so its `not`
holds. `filter_parser` reads it, `traits` is what it asks, `filter_values` how it compares.
No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from edgefleet_contract.errors import Malformed
from edgefleet_fleet.filter_values import Op, is_like, is_ordered
from edgefleet_fleet.traits import Traits

ALL: Final = "all"
WORDS: Final = ("and", "or", "not", "in")
_PLAIN: Final = re.compile(r"[^\s\"=<>!(),|]+")


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
                return any(
                    is_ordered(item, self.op, value) for item in found for value in self.values
                )

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
    if _PLAIN.fullmatch(value) and value not in WORDS:
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
