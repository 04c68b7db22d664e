"""What a device counts of requests: the right bins, little work, and nothing but counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgefleet_agent.ports import ModelSpec, StoredFile
from edgefleet_agent.runtime.drift_watch import JUDGED, DriftWatch
from edgefleet_agent.runtime.tally import DRAWN, ROWS, Tally, misfit
from edgefleet_agent.serving.config import ModelConfig
from edgefleet_contract.bundle import Digest, sha256
from edgefleet_contract.drift import Counted, Window
from edgefleet_contract.drift_reference import Distribution, Kind, Reference, render_reference
from tests.agent.hosting import running, until
from tests.agent.models import X, Y, linear, make_spec, pixels

DIGEST = Digest("c" * 64)
PIXELS = Distribution("x", Kind.NUMBER, (25, 25, 25, 25), edges=(3.0, 7.0, 11.0))
BEST = Distribution("y", Kind.CLASS, (50, 50), classes=(4,))
REFERENCE = Reference(100, 10, (PIXELS,), (BEST,))


def watched_spec(folder: Path, raw: bytes, slot: str) -> ModelSpec:
    x = pixels(4)
    spec = make_spec(folder, "linear1.onnx", {X: x}, {Y: linear(x)}, slot=slot)
    place = folder / f"{slot}.json"
    place.write_bytes(raw)
    variant = replace(spec.variant, drift="onnx/drift.json")
    files = {**spec.files, "onnx/drift.json": StoredFile(str(place), sha256(raw))}
    return replace(spec, variant=variant, files=files)


def test_every_row_is_counted_once_in_the_bin_of_its_values() -> None:
    tally = Tally(REFERENCE, DIGEST, ())
    x = pixels(3)
    for _ in range(50):
        tally.note({"x": x}, {"y": np.eye(10, dtype=np.float32)[[4, 4, 5]]})
        tally.settle()
    window = tally.take()
    assert window is not None
    assert (window.examples, window.reference) == (150, DIGEST)
    numbers, classes = window.counted
    bins = np.histogram(x, [-np.inf, 3.5, 7.5, 11.5, np.inf])[0] * 50  # whole numbers
    assert numbers.bins == tuple(bins.tolist())
    assert numbers.zeros == 50 * int((x == 0).sum())
    assert classes.bins == (100, 50)
    assert tally.take() is None
    assert not tally.has_news


def test_large_tensors_and_many_rows_are_looked_at_in_part() -> None:
    tally = Tally(REFERENCE, DIGEST, ())
    tally.note({"x": np.ones((1000, 5000), np.float32)}, {})
    window = tally.take()
    assert window is not None
    assert window.examples == ROWS
    assert sum(window.counted[0].bins) == ROWS * DRAWN


def test_numbers_that_are_none_are_missing() -> None:
    tally = Tally(REFERENCE, DIGEST, ())
    tally.note({"x": np.asarray([[np.nan, np.inf, 1.0]], np.float32)}, {})
    window = tally.take()
    assert window is not None
    assert window.counted[0] == Counted((1, 0, 0, 0), missing=2)


def test_what_was_noted_does_not_change_with_the_memory_that_it_was_in() -> None:
    tally = Tally(REFERENCE, DIGEST, ())
    body = np.zeros((1, 64), np.float32)
    tally.note({"x": body}, {})
    body[:] = 15
    window = tally.take()
    assert window is not None
    assert window.counted[0].bins == (64, 0, 0, 0)


def test_a_reference_of_other_tensors_does_not_fit() -> None:
    variant = make_variant_of_texts()
    assert "length of 'x'" in misfit(
        Reference(100, 10, (replace(PIXELS, kind=Kind.LENGTH),), ()), variant
    )
    assert "no tensor" in misfit(Reference(100, 10, (replace(PIXELS, tensor="z"),), ()), variant)
    assert misfit(REFERENCE, variant) == ""


def make_variant_of_texts():  # type: ignore[no-untyped-def]  # a variant
    from edgefleet_contract.bundle import Format, Variant

    return Variant("v", Format.ONNX, "fp32", "m", "g", 0, (X,), (Y,), {"onnxruntime": "1"})


def test_little_is_kept_back_and_enough_is_judged() -> None:
    watch = DriftWatch(REFERENCE)
    one = Window(DIGEST, 9, (Counted((9, 0, 0, 0)), Counted((9, 0))))
    assert not watch.add(one)
    assert watch.take() is None  # nine requests would be told of
    assert not watch.add(one)
    told = watch.take()
    assert told is not None
    assert told.examples == 18
    assert watch.take() is None
    judged = [watch.add(one) for _ in range(JUDGED // 9)]
    assert sum(judged) == 1
    assert watch.examples >= JUDGED
    assert watch.judged[0].psi > 1


def test_a_host_shows_drift_and_reports_it_and_a_slot_may_go_without(tmp_path: Path) -> None:
    raw = render_reference(REFERENCE)
    spec, still = watched_spec(tmp_path, raw, "seen"), watched_spec(tmp_path, raw, "unseen")
    broken = watched_spec(tmp_path, b"{}", "broken")
    models = {"unseen": ModelConfig(drift=False)}
    with running(models=models) as here:
        assert here.do(here.host.activate((spec, still, broken))) is None
        bright = np.full((JUDGED // 4, 64), 15.0).tolist()
        for slot in ("seen", "unseen", "broken"):
            for row in range(0, len(bright), 10):
                answered = here.predict(slot, {"instances": bright[row : row + 10]})
                assert answered.status == 200
        for _ in range(4):
            for row in range(0, len(bright), 10):
                here.predict("seen", {"instances": bright[row : row + 10]})

        def metrics() -> str:
            return here.ask("GET", "/metrics").body.decode()

        until(lambda: 'edgefleet_drift_psi{model="seen"' in metrics())
        line = next(
            line
            for line in metrics().splitlines()
            if line.startswith('edgefleet_drift_psi{model="seen",version="1",tensor="x"')
        )
        assert float(line.rpartition(" ")[2]) > 1
        assert 'edgefleet_drift_psi{model="unseen"' not in metrics()
        stats = {one.slot: one for one in here.host.stats(new_interval=True)}
        window = stats["seen"].drift
        assert window is not None
        assert window.reference == sha256(raw)
        assert window.counted[0].bins[:3] == (0, 0, 0)
        assert stats["unseen"].drift is None
        assert stats["broken"].drift is None
