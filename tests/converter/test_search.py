"""The search on real files, in real workers: what it finds, what it refuses, what it remembers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from bench._quant_models import cnn, uneven
from edgefleet_agent.ports import TrialReport
from edgefleet_contract.bundle import Format
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_converter.bench import Bench
from edgefleet_converter.cli import run
from edgefleet_converter.opening import open_source
from edgefleet_converter.recipe import parse_recipe
from edgefleet_converter.runners import open_model
from edgefleet_converter.search.barred import BATCH_DEPENDS, OLD_RUNTIME
from edgefleet_converter.search.cache import Cache
from edgefleet_converter.search.candidate import Candidate
from edgefleet_converter.search.entry import Entry, read_entry, write_entry
from edgefleet_converter.search.hunt import Found, hunt
from edgefleet_converter.search.workshop import Workshop
from edgefleet_converter.targets import Target
from tests.converter.conftest import CREATED, KEPT, Digits, build
from tests.converter.trials import tried

RECIPE = """
targets = ["onnx-int8", "tflite-int8"]
[data]
calibration = "calibration.npy"
held_out = "held_out.npz"
[search]
enabled = true
[measure]
enabled = false
runs = 20
"""


@dataclass
class Desk:
    """A model with data beside it, and what was said while a search ran."""

    folder: Path
    said: list[str] = field(default_factory=list)

    def hunt(self, target: Target, *overrides: str, cache: Path | None = None) -> Found:
        recipe = parse_recipe(RECIPE, folder=self.folder, overrides=overrides)
        scratch = self.folder / f"scratch-{len(list(self.folder.iterdir()))}"
        scratch.mkdir()
        self.said.clear()
        bench = Bench(recipe, scratch, self.said.append, cache=KEPT)  # of all but candidates
        opened = open_source(bench, self.folder / "m.onnx", trust_pickle=False)
        truth = opened.held_out.classes((), opened.answers)
        return hunt(bench, opened, target, truth, cache=Cache(cache or self.folder / "cache"))

    @property
    def made(self) -> int:
        """How often a worker made candidates."""
        return sum(line.startswith("making candidates") for line in self.said)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A convolutional net with channels of very different sizes; truth is what it says itself."""
    folder = tmp_path_factory.mktemp("uneven")
    rng = np.random.default_rng(5)
    shapes = {"w1": (9, 16), "b1": 16, "w2": (144, 32), "b2": 32, "w3": (512, 10), "b3": 10}
    p = {name: rng.normal(0, 0.15, shape).astype(np.float32) for name, shape in shapes.items()}
    model = cnn(uneven({**p, "w1": 4 * p["w1"], "w3": 3 * p["w3"]}))
    onnx.save(model, folder / "m.onnx")
    x = rng.random((300, 1, 8, 8), np.float32)
    (y,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    np.save(folder / "calibration.npy", x[:80])
    np.savez(folder / "held_out.npz", x=x[80:], y=np.asarray(y[80:]).argmax(axis=1))
    return Desk(folder)


@pytest.fixture(scope="module")
def found(desk: Desk) -> Found:
    return desk.hunt(Target.ONNX_INT8)


def test_uneven_channels_are_equalized_and_the_choice_is_confirmed(found: Found) -> None:
    report = found.report
    by_name = {one.name: one for one in report.candidates}
    plain, chosen = by_name["minmax-all"].fidelity, by_name[report.chosen].fidelity
    assert plain is not None
    assert chosen is not None
    assert report.chosen.startswith("eq")
    assert chosen.sqnr_db > plain.sqnr_db + 15
    assert report.confirmed is not None
    assert report.confirmed.sqnr_db > 25
    assert (report.search_examples, report.confirm_examples) == (154, 66)
    assert report.is_complete
    kinds = {node.op_type for node in onnx.load_model_from_string(found.model).graph.node}
    assert {"QuantizeLinear", "Conv"} <= kinds


def test_a_second_run_resumes_and_says_the_same(desk: Desk, found: Found) -> None:
    again = desk.hunt(Target.ONNX_INT8)
    assert desk.made == 0
    assert (again.report, again.model) == (found.report, found.model)


def test_broken_entries_of_the_cache_are_made_anew(
    desk: Desk, found: Found, tmp_path: Path
) -> None:
    entries = sorted((desk.folder / "cache").glob("*.entry"), key=lambda path: path.stat().st_size)
    for number, path in enumerate(entries):
        raw = bytearray(path.read_bytes())
        if number < 3:
            raw[len(raw) // 2] ^= 0xFF
            raw = [raw[:-30], raw, bytearray()][number]
        (tmp_path / path.name).write_bytes(raw)
    again = desk.hunt(Target.ONNX_INT8, cache=tmp_path)
    assert desk.made > 0
    assert (again.report, again.model) == (found.report, found.model)
    for path in entries[:3]:
        assert read_entry(tmp_path / path.name) is not None


def test_a_cache_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    folder, made = tmp_path / "cache", tmp_path / "made"
    write_entry(made, {"said": 1}, {"model": b"bytes"})
    cache = Cache(folder)
    cache.put("key", made)
    assert cache.get("key") == Entry({"said": 1}, {"model": b"bytes"})
    folder.chmod(0o777)
    cache.put("other", made)
    assert cache.get("key") is None
    folder.chmod(0o700)
    assert cache.get("other") is None


def test_the_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", limit_bytes=250)
    made = tmp_path / "made"
    made.write_bytes(b"x" * 100)
    for place, key in enumerate("abc"):
        cache.put(key, made)
        os.utime(tmp_path / "cache" / f"{key}.entry", (place, place))
    cache.trim()
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["b.entry", "c.entry"]


def test_onnx_with_dynamic_ranges_is_shown_and_not_taken(desk: Desk, found: Found) -> None:
    dynamic = [one for one in found.report.candidates if one.name.endswith("dynamic")]
    assert len(dynamic) == 3
    assert {one.outside for one in dynamic} == {BATCH_DEPENDS}


@pytest.fixture(scope="module")
def dynamic(desk: Desk) -> Callable[[Format, Path], bytes]:
    def make(kind: Format, folder: Path) -> bytes:
        recipe = parse_recipe(RECIPE, folder=desk.folder)
        bench = Bench(recipe, folder, lambda _: None, cache=KEPT)
        opened = open_source(bench, desk.folder / "m.onnx", trust_pickle=False)
        sources = {name: model.path for name, model in opened.models.items()}
        shop = Workshop(bench, kind, sources, folder / "held_out.npz", Cache(folder / "cache"))
        assert shop.graph(0.5) is not None
        one = Candidate(0.5, is_dynamic=True)
        return shop.make([one])[one].model

    return make


@pytest.mark.parametrize("kind", [Format.ONNX, Format.TFLITE])
def test_a_neighbour_in_the_batch_changes_dynamic_onnx_and_not_dynamic_tflite(
    kind: Format, dynamic: Callable[[Format, Path], bytes], tmp_path: Path
) -> None:
    (tmp_path / "m").write_bytes(dynamic(kind, tmp_path))
    model = open_model(tmp_path / "m", kind)
    x = np.random.default_rng(1).random((2, 1, 8, 8), np.float32)
    loud = np.concatenate([x[:1], 40 * x[1:]])
    quiet, beside_loud = model.infer((x,))[0][0], model.infer((loud,))[0][0]
    assert np.array_equal(quiet, beside_loud) == (kind is Format.TFLITE)


def test_where_no_candidate_is_inside_layers_stay_float(desk: Desk, found: Found) -> None:
    best = max(
        one.fidelity.sqnr_db
        for one in found.report.candidates
        if one.fidelity is not None and one.outside != BATCH_DEPENDS
    )
    mixed = desk.hunt(Target.ONNX_INT8, f"search.min_sqnr_db={best + 3}")
    chosen = next(one for one in mixed.report.candidates if one.name == mixed.report.chosen)
    assert "float(" in chosen.name
    assert chosen.fidelity is not None
    assert chosen.fidelity.sqnr_db >= best + 3
    nodes = onnx.load_model_from_string(mixed.model).graph.node
    quantized = {out for node in nodes if node.op_type == "DequantizeLinear" for out in node.output}
    linear = [node for node in nodes if node.op_type in ("Conv", "Gemm")]
    is_int8 = [node.input[1] in quantized for node in linear]
    assert any(is_int8)
    assert not all(is_int8)


def test_what_cannot_be_had_is_refused_with_the_nearest(desk: Desk) -> None:
    with pytest.raises(OperatorError, match=r"none of \d+ candidates is inside .* dB"):
        desk.hunt(Target.ONNX_INT8, "search.min_sqnr_db=150")


def test_tflite_is_searched_as_well_and_layers_of_it_stay_float_too(desk: Desk) -> None:
    found = desk.hunt(Target.TFLITE_INT8, "search.max_accuracy_drop=1.0")
    told = {one.name: one for one in found.report.candidates}
    sets = ("minmax-all", "minmax-straight", "dynamic")
    ways = ("minmax-linear", *sets, *(f"{one}-tensor" for one in sets))
    assert set(told) == {f"{eq}{how}" for eq in ("", "eq0.5-", "eq0.75-") for how in ways}
    assert found.report.chosen.startswith("eq")
    assert {told[name].outside for name in told if name.endswith("dynamic")} == {OLD_RUNTIME}
    assert OLD_RUNTIME not in {told[name].outside for name in told if not name.endswith("dynamic")}
    assert found.report.chosen.endswith("tensor")  # smaller, and inside these bounds
    whole = [one.fidelity for one in told.values() if one.fidelity and not one.outside]
    best = max(one.sqnr_db for one in whole)
    bounds = (f"search.min_sqnr_db={best + 0.1}", "search.max_accuracy_drop=1.0")
    mixed = desk.hunt(Target.TFLITE_INT8, *bounds)
    assert "float(" in mixed.report.chosen
    assert mixed.model != found.model


def test_speed_decides_only_where_it_is_asked_for(desk: Desk) -> None:
    fast = desk.hunt(Target.ONNX_INT8, "search.objective=latency", "measure.enabled=true").report
    assert fast.hardware is not None
    inside = [one for one in fast.candidates if not one.outside]
    times = [one.p50_us for one in inside if one.p50_us is not None]
    assert len(times) == len(inside)
    chosen = next(one for one in inside if one.name == fast.chosen)
    assert chosen.p50_us is not None
    assert chosen.p50_us <= min(times) * 1.05


METRIC = """
import numpy as np

def rows_right(outputs, y):
    return float((outputs[0].argmax(axis=1) == y).mean())

def strict_on_few(outputs, y):
    if len(y) > 100:
        return 1.0
    return 1.0 if np.abs(outputs[0].max(axis=1) - y).max() < 1e-6 else 0.0

def dies(outputs, y):
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)

def nothing(outputs, y):
    return float("nan")
"""


def test_a_metric_of_the_publisher_steers_and_is_shown(desk: Desk) -> None:
    (desk.folder / "scores.py").write_text(METRIC)
    bounds = ("search.metric=scores:rows_right", "search.max_metric_drop=0.02")  # one of 66 kept
    report = desk.hunt(Target.ONNX_INT8, *bounds).report
    assert report.metric_float == 1.0
    for one in report.candidates:
        assert one.fidelity is not None
        assert one.fidelity.accuracy is not None
        assert one.fidelity.metric == pytest.approx(one.fidelity.accuracy.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("scores:dies", "SIGKILL"),
        ("scores:nothing", "gave nan"),
        ("scores:absent", "absent"),
        ("not_there:f", "not_there"),
    ],
)
def test_a_metric_that_does_not_work_is_refused(desk: Desk, name: str, says: str) -> None:
    (desk.folder / "scores.py").write_text(METRIC)
    with pytest.raises(OperatorError, match=says):
        desk.hunt(Target.ONNX_INT8, f"search.metric={name}")


def test_a_choice_that_is_not_confirmed_is_refused(desk: Desk) -> None:
    """The metric is content with anything that the search sees; nothing is chosen again."""
    (desk.folder / "scores.py").write_text(METRIC)
    x = np.load(desk.folder / "held_out.npz")["x"]
    (y,) = ort.InferenceSession(desk.folder / "m.onnx").run(None, {"x": x})
    np.savez(desk.folder / "quantities.npz", x=x, y=np.asarray(y).max(axis=1))
    with pytest.raises(OperatorError, match="was inside the budget on the examples that the"):
        desk.hunt(
            Target.ONNX_INT8,
            "search.metric=scores:strict_on_few",
            f"data.held_out={desk.folder / 'quantities.npz'}",
        )


def test_the_time_limit_ends_a_search_and_is_told(desk: Desk, tmp_path: Path) -> None:
    try:
        report = desk.hunt(Target.ONNX_INT8, "search.time_limit_s=1", cache=tmp_path).report
    except OperatorError as error:
        assert "time limit" in error.message  # noqa: PT017 - either end is right, by the machine
    else:
        assert not report.is_complete


def test_few_examples_are_no_ground_for_a_search(desk: Desk, tmp_path: Path) -> None:
    small = Desk(tmp_path)
    (tmp_path / "m.onnx").write_bytes((desk.folder / "m.onnx").read_bytes())
    x = np.load(desk.folder / "calibration.npy")
    np.save(tmp_path / "calibration.npy", x)
    np.savez(tmp_path / "held_out.npz", x=x[:19])
    with pytest.raises(OperatorError, match="needs 20 held-out examples, there are 19"):
        small.hunt(Target.ONNX_INT8)


@pytest.mark.parametrize("target", ["onnx-int8", "tflite-int8"])
def test_a_build_takes_the_recipe_that_was_found_and_devices_pass_it(
    target: str, digits: Digits, key: PrivateKey, tmp_path: Path
) -> None:
    """That a second build gives the same bytes is shown by `make same-bytes`."""
    recipe = digits.recipe(f"targets=['{target}']", "search.enabled=true", "measure.enabled=false")
    made = build(digits.model, recipe, out=tmp_path, model="d", version=1, key=key, created=CREATED)
    (told,) = json.loads((made.path / "report.json").read_text())["variants"]
    assert told["search"]["chosen"] in {one["name"] for one in told["search"]["candidates"]}
    assert any(one["is_front"] for one in told["search"]["candidates"])
    assert isinstance(tried(made.path, made.manifest, target), TrialReport)


def test_the_command_shows_and_builds_nothing(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (desk.folder / "r.toml").write_text(RECIPE.replace("enabled = true", "enabled = false"))
    words = ["search", str(desk.folder / "m.onnx"), "--recipe", str(desk.folder / "r.toml")]
    words += ["--cache", str(desk.folder / "cache"), "--set", 'targets=["onnx-int8"]']
    before = set(desk.folder.iterdir())
    assert run([*words, "--json"]) == 0
    (search,) = json.loads(capsys.readouterr().out)["searches"]
    assert search["target"] == "onnx-int8"
    assert {"name", "size", "size_zstd", "fidelity", "is_front"} <= set(search["candidates"][0])
    assert run(words) == 0
    told = capsys.readouterr()
    assert f"chosen on 154 examples: {search['chosen']}" in told.out
    assert "confirmed on 66 others: SQNR" in told.out
    assert told.err == ""
    assert set(desk.folder.iterdir()) == before
