"""Whom a filter means, how it is written, and where it is wrong."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_contract.errors import Malformed
from edgefleet_fleet.filter_parser import MAX_CHARS, MAX_DEPTH, parse_filter
from edgefleet_fleet.filter_values import Op, is_like, version_key
from edgefleet_fleet.filters import And, Filter, Group, Not, Or, Test, resolve
from edgefleet_fleet.traits import NUMBER_KEYS, PLAIN_KEYS, Traits

PI = Traits(
    "pi-1",
    hw="arm64",
    hardware_class="rpi5",
    arch="aarch64",
    board="Raspberry Pi 5",
    agent="0.10.0",
    engines=frozenset({"onnxruntime"}),
    engine_versions={"onnxruntime": "1.20.1"},
    features=frozenset({"asimd", "asimddp"}),
    models=frozenset({"digits", "digits@2"}),
    model_versions={"digits": "2"},
    online=True,
    cpus=4,
    memory_mib=8064,
    tags={"site": "hall3", "line": "a and b"},
)
names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}", fullmatch=True)
texts = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12
).map(lambda text: text if not text[0].isspace() and text.strip() else f"x{text}")
keys = st.one_of(
    st.sampled_from([key for key in PLAIN_KEYS if key != "online"]),
    names.map(lambda name: f"tag.{name}"),
    names.map(lambda name: f"model.{name}"),
)
tests = st.one_of(
    st.builds(
        Test,
        keys,
        st.sampled_from([Op.IS_NOT]),
        st.lists(texts, min_size=1, max_size=3).map(tuple),
    ),
    st.builds(Test, st.sampled_from(["model", "feature"]), st.just(Op.IS), st.tuples(texts)),
    st.builds(
        Test,
        st.sampled_from(NUMBER_KEYS),
        st.sampled_from([Op.BELOW, Op.AT_MOST, Op.ABOVE, Op.AT_LEAST]),
        st.tuples(st.integers(0, 99).map(str)),
    ),
    names.map(Group),
)
expressions = st.recursive(
    tests | st.just(And()),
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: And(tuple(parts))),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: Or(tuple(parts))),
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "is_meant"),
    [
        ("all", True),
        ("id=pi-1", True),
        ("id=pi-2", False),
        ("id=pi-2|pi-1", True),
        ("hw=arm64,arch=aarch64", True),
        ("hw=arm64,arch=armv7l", False),
        ("engine=onnxruntime", True),
        ("engine=litert", False),
        ("model=digits", True),
        ("model=digits@2", True),
        ("model=digits@1", False),
        ("model=digits and model=cats", False),
        ("online=true", True),
        ("online=false", False),
        ("board=Raspberry Pi 5", True),
        ("board=Raspberry Pi 5 and hw=arm64", True),
        ('board="Raspberry Pi 5"', True),
        ("board=Raspberry*", True),
        ("hardware_class in (rpi4, rpi5)", True),
        ("hardware_class not in (rpi4, rpi5)", False),
        ("not hardware_class=rpi4", True),
        ("id!=pi-1", False),
        ("id=pi-? and not (cpus<4 or online=false)", True),
        ("hw=x86-64 or hw=arm64 and cpus>=8", False),
        ("(hw=x86-64 or hw=arm64) and cpus>=4", True),
        ("agent>=0.9", True),
        ("agent<0.9", False),
        ("engine.onnxruntime>=1.20", True),
        ("engine.litert>=1", False),
        ("model.digits<3", True),
        ("model.cats<3", False),
        ("memory_mib>=4096", True),
        ("feature=asimddp", True),
        ("tag.site=hall3", True),
        ("tag.site=hall?", True),
        ("tag.floor=2", False),
        ("tag.floor!=2", True),
        ("tag.site=*", True),
        ("tag.floor=*", False),
        ('tag.line="a and b"', True),
        ("not not id=pi-1", True),
        ("group:everybody", False),
    ],
)
def test_a_filter_means_the_devices_for_which_it_holds(text: str, is_meant: bool) -> None:
    assert parse_filter(text).matches(PI) is is_meant


@pytest.mark.parametrize(
    ("text", "place", "why"),
    [
        ("", 1, "a key"),
        ("pi-1", 1, "'pi-1' is no key"),
        ("colour=red", 1, "'colour' is no key"),
        ("hw=arm64 and colour=red", 14, "'colour' is no key"),
        ("hw=", 4, "a value of hw"),
        ("hw=and", 4, "a value of hw"),
        ("hw=a,hw=b", 6, "one value"),
        ("hw=a and hw=b", 10, "one value"),
        ("online=yes", 8, "true or false"),
        ("all,", 5, "a key"),
        ("cpus>=four", 7, "whole number"),
        ("hw=a)", 5, "the end"),
        ("(hw=a", 6, "')'"),
        ("hw in a", 7, "'('"),
        ("hw in (a", 9, "',' or ')'"),
        ('board="Pi', 7, "without an end"),
        ("hw ~ a", 4, "expected after hw"),
        ("group:A", 1, "no group"),
        ("tag.=x", 1, "no key"),
        ("hw.x=1", 1, "no key"),
        ("agent>=-", 8, "more or less"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(text: str, place: int, why: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_filter(text)
    assert caught.value.message.startswith(f"filter, character {place}: ")
    assert why in caught.value.message
    assert f">>>{text[place - 1 : place + 20]}"[:10] in caught.value.message
    assert "tag.KEY" in caught.value.hint


def test_what_is_too_long_or_too_deep_is_refused() -> None:
    with pytest.raises(Malformed, match="at most"):
        parse_filter("id=" + "a" * MAX_CHARS)
    for deep in ("(" * (MAX_DEPTH + 1), "not " * (MAX_DEPTH + 1)):
        with pytest.raises(Malformed, match="nested more than"):
            parse_filter(f"{deep}id=a")


@given(expressions)
def test_a_filter_reads_back_as_it_is_written(wanted: Filter) -> None:
    found = Filter(wanted)  # type: ignore[arg-type]
    assert parse_filter(str(found)) == found


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_is_refused(text: str) -> None:
    try:
        found = parse_filter(text)
    except Malformed:
        return
    assert parse_filter(str(found)) == found


@given(expressions, st.booleans())
def test_not_is_the_opposite(wanted: Filter, online: bool) -> None:
    device = Traits("a", online=online, cpus=7, models=frozenset({"x"}))
    assert Filter(Not(wanted)).matches(device) is not Filter(wanted).matches(device)  # type: ignore[arg-type]


@given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
def test_a_pattern_means_what_every_reading_of_it_means(pattern: str, text: str) -> None:
    def reads(p: str, t: str) -> bool:
        if not p:
            return not t
        if p[0] == "*":
            return reads(p[1:], t) or (bool(t) and reads(p, t[1:]))
        return bool(t) and p[0] in ("?", t[0]) and reads(p[1:], t[1:])

    assert is_like(text, pattern) is reads(pattern, text)


def test_versions_are_ordered_as_people_order_them() -> None:
    rising = ["0.9", "1.0a1", "1.0rc1", "1.0", "1.0.1", "1.2", "1.10", "2"]
    for low, high in itertools.pairwise(rising):
        assert version_key(low) < version_key(high), (low, high)
    assert version_key("1.0") == version_key("1") == version_key("1.0.0")


def test_groups_are_put_in_their_place_and_none_means_itself() -> None:
    groups = {
        "pis": parse_filter("hardware_class=rpi*"),
        "hall": parse_filter("group:pis and tag.site=hall3"),
        "loop": parse_filter("not group:loop"),
    }
    found = resolve(parse_filter("group:hall or id=x"), groups)
    assert str(found) == "hardware_class=rpi* and tag.site=hall3 or id=x"
    assert found.matches(PI)
    assert found.groups == frozenset()
    assert resolve(parse_filter("not group:hall"), groups).matches(PI) is False
    with pytest.raises(Malformed, match="means itself: loop -> loop"):
        resolve(parse_filter("group:loop"), groups)
    with pytest.raises(Malformed, match="there is no group 'x'"):
        resolve(parse_filter("group:x"), groups)
