"""The report page: hostile texts stay texts, nothing is fetched, what is absent is not shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_contract.bundle import Limits, TensorSpec, parse_manifest, render_manifest
from edgefleet_contract.canonical import Json
from edgefleet_contract.graph import Node, Program
from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_converter.card import Card
from edgefleet_converter.page import Shown, render_page
from edgefleet_converter.page.bars import confusion, histogram
from edgefleet_converter.page.boards import boards
from edgefleet_converter.page.charts import LATENCY, SIZE, scatter
from edgefleet_converter.page.figures import accuracy_charts, candidates, pruning
from edgefleet_converter.page.markup import Html, el
from edgefleet_converter.page.passes import passes
from edgefleet_converter.page.scales import pareto, scale_of
from edgefleet_converter.page.told import Dot, Histogram, Interval, Layer, ToldFlip, read_told
from edgefleet_converter.papers import Papers
from edgefleet_converter.pipeline import Built
from edgefleet_converter.showing import read_shown
from tests.converter.conftest import CREATED, Digits, build

HOSTILE = "</title></style><script>alert(1)</script>\"'><img src=//evil.example/x onerror=alert(1)>"


class Reader(HTMLParser):
    """What a browser would see: tags, attributes and texts."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(page: bytes) -> Reader:
    reader = Reader(page)
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def shown(built: Built) -> Shown:
    return read_shown(built.path, None)


def lists() -> dict[str, Json]:
    """What other parts of a build may add to a report."""
    points: list[Json] = [
        {"lambda": 10.0**-k, "nonzero": 0.2 * k, "accuracy": 0.9 + 0.01 * k, "size": 1000 * k}
        for k in range(1, 5)
    ]
    tried: list[Json] = [
        {
            "name": f"try-{k}",
            "size_bytes": 9000 - 100 * k,
            "latency_us": 10 + k,
            "accuracy": 0.98 - 0.01 * k,
            "sqnr_db": 40 - k,
            "chosen": k == 1,
        }
        for k in range(3)
    ]
    return {
        "candidates": tried,
        "lambda_sweep": points,
        "sensitivity": [{"name": "conv1", "gain_db": 12.5}, {"name": "conv2", "gain_db": -0.5}],
        "histograms": [{"name": "conv1", "low": -1, "high": 4.5, "counts": [1, 5, 0, 2]}],
    }


def test_the_page_shows_what_was_measured_and_what_was_signed(shown: Shown, built: Built) -> None:
    page = read(render_page(shown))
    text = " ".join(page.texts)
    for words in (
        "digits 1",
        "signature not checked",
        "onnx-int8",
        "98.33 %",
        "SQNR",
        "540 held-out",
    ):
        assert words in text
    for told in built.report.variants:
        assert told.measured is not None
        assert f"{told.size / 1000:.1f}" in text
    for file in built.manifest.files:
        assert file.sha256 in text
    grids = sum(bool(told.flips) for told in built.report.variants)
    assert page.tags.count("svg") == 2 + grids
    assert page.tags.count("circle") == 8


def test_the_page_asks_nobody_for_anything(shown: Shown) -> None:
    raw = render_page(replace(shown, report={**as_object(shown.report), **lists()}))
    page = read(raw)
    assert {"script", "link", "img", "iframe", "object", "a", "form"} & set(page.tags) == set()
    assert {name for name, _ in page.attributes} & {
        "src",
        "href",
        "action",
        "data",
        "srcset",
    } == set()
    assert not re.search(rb"url\(|@import|https?:", raw)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_the_same_bundle_gives_the_same_page(shown: Shown, built: Built) -> None:
    assert render_page(shown) == render_page(read_shown(built.path, None))


def test_lists_of_candidates_sweeps_layers_and_histograms_are_drawn(shown: Shown) -> None:
    plain = read(render_page(shown)).tags.count("svg")
    page = read(render_page(replace(shown, report={**as_object(shown.report), **lists()})))
    text = " ".join(page.texts)
    for words in (
        *("Candidates of the search", "try-2", "chosen", "Pruning", "\u03bb 0.001"),
        *("Sensitivity by layer", "conv2", "Calibration", "weights left"),
    ):
        assert words in text
    assert page.tags.count("svg") == plain + 2 + 2 + 1 + 1


def test_what_a_variant_lists_is_shown_under_its_name() -> None:
    told = read_told({"variants": [{"name": "onnx-int8", "candidates": lists()["candidates"]}]})
    assert [(owner, len(dots)) for owner, dots in told.candidates] == [("onnx-int8", 3)]


def test_a_search_and_pruning_are_shown_as_builds_tell_them() -> None:
    """A table with its candidates inside, the chosen one by name, figures in a table of theirs."""
    share: Json = {"value": 0.97, "low": 0.95, "high": 0.99, "n": 300}
    worth: Json = {"sqnr_db": 33.0, "accuracy": share, "agreement": share}
    found: Json = [
        {"name": "a", "size": 9000, "size_zstd": 700, "fidelity": worth, "p50_us": 4.5},
        {"name": "b", "size": 8000, "fidelity": None, "outside": "accuracy drops by 9 points"},
    ]
    told = read_told(
        {
            "variants": [{"name": "onnx-int8", "search": {"chosen": "a", "candidates": found}}],
            "prune": {"lambda_": 1e-3, "norm0": 30, "weights": 120, "accuracy_after": share},
        }
    )
    ((owner, (a, b)),) = told.candidates
    assert owner == "onnx-int8"
    assert (a.is_chosen, a.size_packed, a.sqnr_db, a.latency_us) == (True, 700, 33.0, 4.5)
    assert a.accuracy == Interval(0.97, 0.95, 0.99, 300)
    assert (b.is_chosen, b.note) == (False, "accuracy drops by 9 points")
    assert told.pruned is not None
    assert (told.pruned.nonzero, told.pruned.name) == (0.25, "\u03bb 0.001")


def test_noise_tells_candidates_apart_where_accuracy_does_not() -> None:
    same = Interval(0.98)
    dots = [Dot(f"try-{i}", size=1000 + i, accuracy=same, sqnr_db=30.0 + i) for i in range(20)]
    chart = scatter(dots, SIZE, anchor=0.99)
    assert chart is not None
    assert "SQNR, dB" in chart
    assert "float model" not in chart
    exact = [Dot("a", size=1, accuracy=same, sqnr_db=200), Dot("b", size=2, accuracy=same)]
    assert "accuracy, %" in str(scatter(exact, SIZE))
    with_float = str(scatter([*dots[:3], replace(exact[0], accuracy=same)], SIZE))
    assert with_float.count("<circle") == 3


def test_anchors_stand_in_the_charts_and_are_told_apart() -> None:
    """Squares on edge, not circles; one that could not be made says why."""
    report: Json = {
        "variants": [
            {"name": "onnx-int8", "size": 900, "accuracy": 0.97, "measured": {"p50_us": 5}},
            {"name": "onnx-float32", "size": 3000, "accuracy": 0.98, "measured": {"p50_us": 9}},
        ],
        "anchors": [
            {"name": "onnxruntime defaults", "size": 800, "accuracy": 0.7, "sqnr_db": 9},
            {"name": "ai-edge-quantizer defaults", "error": "nothing to quantize"},
        ],
    }
    page = read(str(accuracy_charts(read_told(report))).encode())
    assert page.tags.count("circle") == 4
    assert page.attributes.count(("class", "peer")) == 1, "it has no latency"
    assert "onnxruntime defaults" in page.texts
    assert "nothing to quantize" in page.texts


def test_changed_decisions_make_a_grid_by_class() -> None:
    flips = (ToldFlip(1, 1, 7, 3), ToldFlip(7, 7, 1, 1), ToldFlip(None, 2, 7, 1))
    grid = str(confusion(flips, lambda place: f"<{place}>"))
    assert grid.count('class="changed"') == 3
    assert grid.count('class="same"') == 3
    assert "&lt;1&gt; became &lt;7&gt;: 3" in grid
    assert confusion((), str) is None


def test_the_layers_that_a_search_left_float_are_shown() -> None:
    layers: Json = {"base": "minmax-all", "layers": [{"name": "conv", "gain_db": 7.5}]}
    told = read_told({"variants": [{"name": "onnx-int8", "search": {"sensitivity": layers}}]})
    assert told.layers == (("onnx-int8", (Layer("conv", 7.5),)),)


def hostile_parts(shown: Shown) -> Iterator[Shown]:
    """The page's sources with hostile texts wherever a publisher may write one."""
    card = shown.papers.card
    origin = shown.papers.provenance
    assert card is not None
    assert origin is not None
    yield replace(
        shown,
        papers=Papers(
            replace(
                card,
                description=HOSTILE,
                task=HOSTILE,
                licence=HOSTILE,
                authors=(HOSTILE,),
                intended_use=(HOSTILE,),
                limitations=(HOSTILE,),
                datasets=tuple(
                    replace(one, name=HOSTILE, description=HOSTILE) for one in card.datasets
                ),
            ),
            replace(
                origin,
                builder=HOSTILE,
                invocation=HOSTILE,
                started=HOSTILE,
                versions={HOSTILE: HOSTILE},
                parameters={HOSTILE: HOSTILE},
                materials=tuple(replace(one, name=HOSTILE) for one in origin.materials),
            ),
            (HOSTILE,),
        ),
    )
    first = shown.manifest.variants[0]
    taken, given = (TensorSpec(f"{HOSTILE}{end}", "float32", (-1, 3)) for end in "ab")
    node = Node("model", (taken.name,), (given.name,), first.model)
    bad = replace(
        first,
        inputs=(taken,),
        outputs=(given,),
        runtimes={HOSTILE: "1"},
        limits={HOSTILE: Limits()},
        program=Program((node,)),
    )
    manifest = replace(shown.manifest, variants=(bad,))
    assert parse_manifest(render_manifest(manifest)) == manifest, "a publisher may sign this"
    flips: Json = [{"before": 1, "after": 2, "count": 1, "truth": 1}]
    report: Json = {"variants": [{"name": HOSTILE, "flips": flips, "kernels": [HOSTILE]}]}
    yield replace(shown, manifest=manifest, labels=(HOSTILE,) * 10, signer=HOSTILE, report=report)
    written = json.dumps({**as_object(shown.report), **lists()})
    for word in ("try-", "conv1", "onnx-int8", "x86-64"):
        written = written.replace(word, json.dumps(HOSTILE)[1:-1])
    yield replace(shown, report=json.loads(written))


def test_hostile_texts_stay_texts(shown: Shown) -> None:
    for bad in hostile_parts(shown):
        page = read(render_page(bad))
        assert {"script", "img"} & set(page.tags) == set()
        assert page.tags.count("style") == 1
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert any("<script>alert(1)" in text for text in page.texts)


def test_a_card_of_hostile_texts_is_shown_from_a_real_bundle(
    digits: Digits, key: PrivateKey, tmp_path: Path
) -> None:
    """All the way: recipe, build, signature, page."""
    recipe = replace(
        digits.recipe("measure.enabled=false", "golden.vectors=1", "targets=['onnx-float32']"),
        card=Card(description=HOSTILE, authors=(HOSTILE,), limitations=("&amp; <b>bold</b>",)),
    )
    made = build(
        digits.model, recipe, out=tmp_path, model="digits", version=1, key=key, created=CREATED
    )
    ring = KeyRing([key.public])
    page = read(render_page(read_shown(made.path, ring)))
    assert {"script", "img"} & set(page.tags) == set()
    assert HOSTILE in page.texts
    assert "&amp; <b>bold</b>" in page.texts
    assert key.public.id in page.texts
    assert "signed" in page.texts


def test_characters_that_turn_a_line_around_are_replaced() -> None:
    assert el("p", "a\u202eb\x00c", title="\x1b[2J") == '<p title="\ufffd[2J">a\ufffdb\ufffdc</p>'


def test_only_elements_are_markup() -> None:
    assert el("p", "<b>", el("i", "&")) == "<p>&lt;b&gt;<i>&amp;</i></p>"
    assert el("p", [None, ["<"]]) == "<p>&lt;</p>"
    assert isinstance(el("br"), Html)


def test_a_report_of_another_version_shows_what_is_understood(shown: Shown) -> None:
    for report in (
        None,
        [],
        {"variants": [7, {"name": ["x"], "size": "big", "accuracy": {"value": None}}]},
        {"variants": [{"name": "a", "size": float("nan"), "measured": {"p50_us": float("inf")}}]},
        {"variants": [{"name": "a", "size": 10**400}], "histograms": [{"low": 1, "high": 1}]},
    ):
        read(render_page(replace(shown, report=report)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "variants",
                        "candidates",
                        "lambda_sweep",
                        "sensitivity",
                        "histograms",
                        "name",
                    ),
                    *(
                        "size",
                        "accuracy",
                        "value",
                        "low",
                        "high",
                        "n",
                        "counts",
                        "sqnr_db",
                        "lambda",
                    ),
                    *(
                        "measured",
                        "p50_us",
                        "flips",
                        "before",
                        "after",
                        "truth",
                        "count",
                        "kernels",
                    ),
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=40,
)


@given(JSON)
def test_no_report_breaks_the_page(shown: Shown, report: Json) -> None:
    read(render_page(replace(shown, report=report)))


@given(
    st.lists(
        st.tuples(st.floats(1e-3, 1e9), st.floats(0, 1), st.text(max_size=30)),
        min_size=2,
        max_size=20,
    )
)
def test_every_dot_lies_within_the_chart(points: list[tuple[float, float, str]]) -> None:
    dots = [Dot(name, size=size, accuracy=Interval(share)) for size, share, name in points]
    chart = scatter(dots, SIZE)
    assert chart is not None
    for x, y in re.findall(r'cx="([-0-9.]+)" cy="([-0-9.]+)"', chart):
        assert 0 <= float(x) <= 460
        assert 0 <= float(y) <= 292
    assert scatter(dots, LATENCY) is None, "nothing has a latency"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1))
def test_the_front_is_what_nothing_else_beats(points: list[tuple[int, int]]) -> None:
    front = pareto([(float(x), float(y)) for x, y in points])
    best = {
        (x, y)
        for x, y in points
        if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in points)
    }
    assert {(int(x), int(y)) for x, y in front} == best


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=9))
def test_a_scale_has_few_round_ticks_and_holds_every_value(values: list[float]) -> None:
    scale = scale_of(values, start=0, stop=100, least=0)
    assert all(0 <= scale.at(value) <= 100 for value in values)
    assert 1 <= len(scale.ticks()) <= 30


def test_a_histogram_of_nothing_is_empty() -> None:
    assert "<rect" not in histogram(Histogram("x", 0, 1, ()))
    assert histogram(Histogram("x", 0, 1, (1, 2, 0))).count("<rect") == 2


def as_object(value: Json) -> dict[str, Json]:
    assert isinstance(value, dict)
    return value


def test_what_boards_measured_is_shown_as_far_as_it_is_understood() -> None:
    board = {"board": {"machine": "aarch64", "os": "Debian", "is_emulated": True}, "name": "Pi <4>"}
    on = {"board": "Pi <4>", "runtime": "litert 2.1", "p50_us": 12.25, "p95_us": "much"}
    failed = {"board": "Pi <4>", "trouble": "trial_crashed: SIGSEGV"}
    report = {
        "boards": [
            board | {"way": "here", "after": {"celsius": 71, "throttled": ["throttled"]}},
            1,
        ],
        "variants": [{"name": "v", "boards": [on, failed, None]}, []],
    }
    shown = str(boards(report))
    for words in ("Pi &lt;4&gt;", "12.2", "trial_crashed: SIGSEGV", "emulated", "71 °C"):
        assert words in shown
    assert "on the desk, not on a board" in shown
    assert "held back: throttled" in shown
    assert boards({"boards": 1, "variants": {}}) is None
    assert boards(None) is None


def test_what_passes_brought_is_shown_as_far_as_it_is_understood() -> None:
    brought: Json = {
        "name": "<offline>",
        "size_before": 2000,
        "size": 3000,
        "load_ms_before": 4.0,
        "load_ms": 1.5,
        "ram_mib": "many",
    }
    report: Json = {"variants": [{"name": "v", "passes": [brought, 7]}, None]}
    found = str(passes(report))
    for part in ("&lt;offline&gt;", "2.0 → 3.0", "4.0 → 1.5", ">-<"):
        assert part in found
    for nothing in (None, {}, {"variants": [{"passes": []}]}):
        assert passes(nothing) is None


def test_many_candidates_are_folded_away_behind_the_choice_and_the_front() -> None:
    tried: list[Json] = [
        {"name": f"eq{i}", "size": 1000 + i, "is_front": i < 2, "chosen": i == 1} for i in range(20)
    ]
    page = read(str(el("main", candidates(read_told({"candidates": tried})))).encode())
    assert page.tags.count("details") == 1
    text = " ".join(page.texts)
    assert text.index("eq1") < text.index("eq0") < text.index("18 others") < text.index("eq19")
    few = str(el("main", candidates(read_told({"candidates": tried[:5]}))))
    assert "details" not in few


def test_the_name_of_the_float_line_stands_where_no_dot_is() -> None:
    dots = [
        Dot(f"d{x}", size=1000.0 * x, accuracy=Interval(0.9 if x != 5 else 0.8))
        for x in (1, 2, 5, 9, 10)
    ]
    drawn = str(scatter(dots, SIZE, anchor=0.9))
    (begin,) = re.findall(r'x="([\d.]+)"[^>]*class="quiet">float model', drawn)
    assert 150 < float(begin) < 300


def test_a_sweep_shows_its_loss() -> None:
    points: list[Json] = [{"lambda": 1e-4, "loss": 0.1234}, {"lambda": 1e-3, "loss": 2.5}]
    shown = str(el("main", pruning(read_told({"lambda_sweep": {"points": points}}))))
    assert "loss, nats" in shown
    assert "0.1234" in shown
