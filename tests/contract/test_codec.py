from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_contract import codec
from edgefleet_contract.errors import Malformed


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Inner:
    n: int
    colour: Colour = Colour.RED


@dataclass(frozen=True, slots=True)
class Outer:
    name: str
    inner: tuple[Inner, ...]
    table: dict[str, float] = field(default_factory=dict)
    maybe: str | None = None
    flag: bool = False


inners = st.builds(Inner, n=st.integers(-(2**53) + 1, 2**53 - 1), colour=st.just(Colour.RED))
outers = st.builds(
    Outer,
    name=st.text(),
    inner=st.lists(inners).map(tuple),
    table=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
    maybe=st.none() | st.text(),
    flag=st.booleans(),
)


@given(outers)
def test_what_is_encoded_decodes_to_the_same_value(value: Outer) -> None:
    assert codec.decode(Outer, codec.encode(value), what="x") == value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "x: expected an object, found list"),
        ({"name": "a"}, "x: field 'inner' is missing"),
        ({"name": 1, "inner": []}, "x.name: expected a string, found int"),
        ({"name": "a", "inner": [{"n": True}]}, "x.inner[0].n: expected an integer, found bool"),
        ({"name": "a", "inner": [{"n": 1, "colour": "blue"}]}, "x.inner[0].colour: 'blue'"),
        ({"name": "a", "inner": [{"n": 1, "colour": []}]}, "x.inner[0].colour"),
        ({"name": "a", "inner": {}}, "x.inner: expected a list, found dict"),
        ({"name": "a", "inner": [], "table": []}, "x.table: expected an object, found list"),
        ({"name": "a", "inner": [], "flag": 1}, "x.flag: expected bool, found int"),
        ({"name": "a", "inner": [], "nmae": 1}, "x: unknown field 'nmae'"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(value: codec.Json, said: str) -> None:
    with pytest.raises(Malformed) as caught:
        codec.decode(Outer, value, what="x")
    assert said in caught.value.message


def test_unknown_fields_are_ignored_where_versions_may_grow() -> None:
    value: codec.Json = {"name": "a", "inner": [], "later": 1}
    assert codec.decode(Outer, value, what="x", unknown=True) == Outer("a", ())


@dataclass(frozen=True, slots=True)
class Penalty:
    lambda_: float = 0.0


def test_a_field_that_would_be_a_word_of_python_is_plain_in_documents() -> None:
    assert codec.encode(Penalty(0.5)) == {"lambda": 0.5}
    assert codec.decode(Penalty, {"lambda": 0.5}, what="t") == Penalty(0.5)
    with pytest.raises(Malformed, match="unknown field 'lambda_'"):
        codec.decode(Penalty, {"lambda_": 0.5}, what="t")
