"""Whatever the two files are: what is packed makes the new one, and is smaller than it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from backports import zstd
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgefleet_contract import delta as d
from edgefleet_contract.bundle import sha256
from edgefleet_contract.delta import Code, Kind
from edgefleet_contract.lanes import Layout
from edgefleet_fleet.delta_encoder import NOT_WORTH_IT, encode
from tests.contract.deltas import noise, read
from tests.fleet.test_tensor_spans import onnx_file


def make(folder: Path, old: bytes, new: bytes) -> bytes | None:
    with (folder / "delta").open("w+b") as out:
        if not encode(memoryview(old), memoryview(new), out):
            return None
        out.seek(0)
        return out.read()


def check(folder: Path, old: bytes, new: bytes) -> bytes | None:
    delta = make(folder, old, new)
    if delta is not None:
        assert read(delta, old, sha256(new), len(new)) == new
        assert len(delta) < 0.8 * len(new)
    return delta


def head(delta: bytes | None) -> d.Head:
    assert delta is not None
    return d.parse_head(lambda at, most: delta[at : at + most])[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deltas")


BYTES = st.one_of(st.binary(max_size=3000), st.integers(0, 50_000).map(lambda n: noise("x", n)))


@settings(max_examples=60, deadline=None)
@given(BYTES, BYTES)
@example(b"", b"")
@example(b"", bytes(5000))
@example(bytes(5000), b"")
def test_any_two_files(folder: Path, old: bytes, new: bytes) -> None:
    check(folder, old, new)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(500, 60_000),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.binary(max_size=200)), max_size=6),
)
def test_any_edit_of_a_file_is_found_again(
    folder: Path, size: int, edits: list[tuple[float, float, bytes]]
) -> None:
    old = noise("old", size)
    new = old
    for place, until, fresh in edits:  # takes out, puts in, moves
        start, end = sorted((int(place * len(new)), int(until * len(new))))
        end = min(end, start + 400)
        new = new[:start] + fresh + new[end:] + new[start:end]
    delta = check(folder, old, new)
    assert delta is not None
    assert len(delta) < 1200 + 1000 * len(edits)


KINDS = st.sampled_from(["f2", "f4", "f8", "i1", "u1", "i2", "i4", "i8"])


@st.composite
def mutated_tensors(draw: st.DrawFn) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Tensors before and after: changed a little, exchanged, renamed, grown, dropped."""
    dice = np.random.default_rng(draw(st.integers(0, 99)))
    old = {
        f"w{number}": (100 * dice.standard_normal(draw(st.integers(1, 3000)))).astype(kind)
        for number, kind in enumerate(draw(st.lists(KINDS, min_size=1, max_size=5)))
    }
    new = {}
    for name, value in old.items():
        match draw(
            st.sampled_from(["same", "near", "far", "renamed", "longer", "shorter", "gone"])
        ):
            case "near":
                near = value + dice.integers(-2, 3, value.shape).astype(value.dtype)
                new[name] = near.astype(value.dtype)
            case "far":
                new[name] = dice.permutation(value)
            case "renamed":
                new[f"{name}.{draw(st.integers(0, 9))}"] = value
            case "longer":
                new[name] = np.concatenate([value, value[:7]])
            case "shorter":
                new[name] = value[: len(value) // 2]
            case "same":
                new[name] = value
    return old, new


@settings(max_examples=80, deadline=None)
@given(mutated_tensors())
def test_any_change_of_tensors(
    folder: Path, tensors: tuple[dict[str, np.ndarray], dict[str, np.ndarray]]
) -> None:
    old, new = tensors
    check(folder, onnx_file(old), onnx_file(new))


def weights(kind: str = "f4", size: int = 20_000) -> np.ndarray:
    return (np.random.default_rng(1).standard_normal(size) * 30).astype(kind)


def test_floats_that_were_trained_on_are_differences_by_lanes_of_four(folder: Path) -> None:
    old = weights()
    delta = check(folder, onnx_file({"w": old}), onnx_file({"w": old * np.float32(1.00001)}))
    assert (Code.SUB, Layout.QUADS) in {(one.code, one.layout) for one in head(delta).operations}
    assert delta is not None
    assert len(delta) < 0.4 * old.nbytes


def test_small_integers_that_were_rounded_anew_are_differences_by_digits(folder: Path) -> None:
    old = weights("i1")
    near = old + (np.random.default_rng(2).random(old.size) < 0.05).astype("i1")
    delta = check(folder, onnx_file({"w": old}), onnx_file({"w": near}))
    assert (Code.SUB, Layout.CRUMBS) in {(one.code, one.layout) for one in head(delta).operations}
    assert delta is not None
    assert len(delta) < 0.1 * old.nbytes


def test_a_tensor_is_found_under_another_name_and_in_another_place(folder: Path) -> None:
    a, b = weights(size=20_000), weights(size=30_000)[::-1].copy()
    delta = check(folder, onnx_file({"a": a, "b": b}), onnx_file({"x": b, "y": a}))
    assert delta is not None
    assert len(delta) < 1000


def test_a_row_that_was_added_costs_that_row(folder: Path) -> None:
    old = weights(size=20_000)
    delta = check(
        folder, onnx_file({"w": old}), onnx_file({"w": np.append(old, weights(size=100))})
    )
    assert delta is not None
    assert len(delta) < 1500


def test_text_with_a_changed_word_has_the_old_file_as_a_prefix(folder: Path) -> None:
    old = "\n".join(f"class number {number} of many" for number in range(3000)).encode()
    new = old.replace(b"number 77 ", b"number seventy-seven ")
    delta = check(folder, old, new)
    assert delta is not None
    assert (head(delta).kind, len(delta) < 600) == (Kind.PREFIX, True)


def test_a_file_that_has_nothing_of_the_old_one_is_packed_alone(folder: Path) -> None:
    new = b"".join(b"%d;" % (number * number) for number in range(30_000))
    delta = check(folder, noise("old", 4000), new)
    assert delta is not None
    assert len(delta) < len(zstd.compress(new, 19)) + 600


def test_noise_is_not_worth_a_delta(folder: Path) -> None:
    assert make(folder, noise("old", 40_000), noise("new", 40_000)) is None


def test_it_is_deterministic(folder: Path) -> None:
    old = onnx_file({"w": weights()})
    new = onnx_file({"w": weights() * np.float32(1.001)})
    assert make(folder, old, new) == make(folder, old, new)


@pytest.mark.parametrize(("new", "status"), [(bytes(9000), 0), (noise("new", 9000), NOT_WORTH_IT)])
def test_as_a_program_it_writes_a_file_or_says_that_it_is_not_worth_it(
    tmp_path: Path, new: bytes, status: int
) -> None:
    (tmp_path / "old").write_bytes(b"")
    (tmp_path / "new").write_bytes(new)
    command = [sys.executable, "-m", "edgefleet_fleet.delta_encoder", "old", "new", "delta"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == status
    if status == 0:
        delta = (tmp_path / "delta").read_bytes()
        assert read(delta, b"", sha256(new), len(new)) == new
