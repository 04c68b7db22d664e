"""Hostile models and golden outputs: what a publisher's key could sign by mistake or by force.

By digest first: a file that is not the signed one never reaches a runtime. Then with a digest that
is right: the trial process pays, and nobody else.
"""

from __future__ import annotations

import asyncio
import io
import os
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgefleet_agent.ports import Failed, ModelSpec
from edgefleet_agent.runtime.golden import Golden, read_golden
from edgefleet_agent.runtime.loading import Job, golden_source, job_for, read_variant
from edgefleet_agent.runtime.opening import load
from edgefleet_agent.runtime.trial_runner import try_model
from edgefleet_contract.bundle import Limits, sha256
from edgefleet_contract.errors import DeviceError
from edgefleet_contract.reasons import Reason
from tests.agent.models import (
    X,
    Y,
    asked_spec,
    linear,
    linear_spec,
    make_spec,
    model_path,
    pixels,
    stored,
    tflite_spec,
    with_file,
    with_model,
)
from tests.hostile.attempts import Attempt, hostile
from tests.hostile.ground import Ground

PASSED = "the trial passed: the golden outputs are what they must be"
TRIAL_S = 30.0  # a busy machine is no reason of its own
DATA_MIB = 1024
MUTANTS = 40  # of each format, through a real process


def specs(ground: Ground) -> Iterator[tuple[str, ModelSpec]]:
    yield "onnx", linear_spec(ground.folder / "onnx-spec")
    yield "tflite", tflite_spec(ground.folder / "tflite-spec")


def tried(spec: ModelSpec, timeout_s: float = TRIAL_S) -> object:
    """What a real trial says; raises what it refuses."""
    outcome = asyncio.run(try_model(spec, timeout_s=timeout_s, threads=1, data_mib=DATA_MIB))
    if isinstance(outcome, Failed):
        raise DeviceError(outcome.detail, reason=outcome.reason)
    return PASSED


@hostile("mutated_models", Reason.DIGEST_MISMATCH, sample=200)
def mutated_models(ground: Ground) -> Iterator[Attempt]:
    """Every byte of a model changed, and every length cut: no runtime sees it."""
    for name, spec in specs(ground):
        raw = model_path(spec).read_bytes()
        place = ground.folder / f"mutated-{name}"
        job = job_for(with_model(spec, path=str(place)), threads=1)
        golden = read_golden(golden_source(job), spec.variant)

        def opened(
            mutant: bytes, job: Job = job, place: Path = place, golden: Golden = golden
        ) -> object:
            place.write_bytes(mutant)
            found = load(job, read_variant(job), golden, on_trial=True)
            if isinstance(found, Failed):
                raise DeviceError(found.detail, reason=found.reason)
            return found

        for position in range(len(raw)):
            mutant = bytearray(raw)
            mutant[position] ^= 1 << position % 8
            yield Attempt(
                f"{name}: byte {position}",
                lambda m=bytes(mutant), opened=opened: opened(m),
            )
            yield Attempt(
                f"{name}: {position} bytes",
                lambda m=raw[:position], opened=opened: opened(m),
            )


@hostile(
    "signed_mutants",
    Reason.LOAD_FAILED,
    Reason.GOLDEN_MISMATCH,
    Reason.TRIAL_CRASHED,
    Reason.TRIAL_TIMEOUT,
    Reason.MEMORY_EXCEEDED,
    sample=6,
)
def signed_mutants(ground: Ground) -> Iterator[Attempt]:
    """Mutated and cut models whose digest is right: only the trial stands before them."""
    chance = random.Random(20)
    for name, spec in specs(ground):
        raw = model_path(spec).read_bytes()
        for number in range(MUTANTS):
            mutant = bytearray(raw)
            for _ in range(1 + number % 3):
                mutant[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
            if number % 5 == 4:
                del mutant[chance.randrange(len(raw)) :]
            path = ground.folder / f"mutant-{name}-{number}"
            path.write_bytes(mutant)
            other = with_model(spec, path=str(path), sha256=sha256(bytes(mutant)))
            yield Attempt(f"{name} {number}", lambda s=other: tried(s), same=PASSED)


@hostile(
    "greedy_models",
    Reason.TRIAL_TIMEOUT,
    Reason.MEMORY_EXCEEDED,
    Reason.LATENCY_EXCEEDED,
    Reason.LOAD_FAILED,
    Reason.GOLDEN_MISMATCH,
    sample=4,
)
def greedy_models(ground: Ground) -> Iterator[Attempt]:
    """Models that hang, eat memory, are slower or larger than signed, or point outside."""
    folder = ground.folder / "greedy"
    hang = asked_spec(folder / "a", "busy.onnx", 10_000_000)
    yield Attempt("hangs", lambda: tried(hang, 1.5))
    eats = asked_spec(folder / "b", "greedy.onnx", 3_000)
    yield Attempt("eats memory", lambda: tried(eats))
    large = asked_spec(folder / "c", "greedy.onnx", 60, limits=Limits(ram_mib=30))
    yield Attempt("larger than signed", lambda: tried(large))
    slow = asked_spec(folder / "d", "busy.onnx", 5, limits=Limits(p95_us=10))
    yield Attempt("slower than signed", lambda: tried(slow))
    x = pixels(2)
    for name, file, target in (
        ("external data beside it", "external.onnx", None),
        ("external data in a branch", "external_branch.onnx", None),
        ("external data by a link", "external.onnx", "/etc/passwd"),
    ):
        spec = make_spec(folder / name, file, {X: x}, {Y: linear(x)})
        beside = model_path(spec).with_name("weights.bin")
        if target:
            beside.symlink_to(target)
        else:
            beside.write_bytes(bytes(2560))
        yield Attempt(name, lambda s=spec: tried(s))
    for name, location in (
        ("external data by ../", b"../weights"),
        ("external data by an absolute path", b"/etc/passw"),
    ):
        spec = make_spec(folder / name, "external.onnx", {X: x}, {Y: linear(x)})
        raw = model_path(spec).read_bytes()
        assert raw.count(b"weights.bin") == 1
        padded = location.ljust(len(b"weights.bin"), b"x")
        raw = raw.replace(b"weights.bin", padded)
        model_path(spec).write_bytes(raw)
        spec = with_model(spec, sha256=sha256(raw))
        yield Attempt(name, lambda s=spec: tried(s))


_PLAIN = b"PK\x01\x02\x14\x03\x14\x00\x00"  # a member in the list of an archive, its flags last


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def packed(members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    return stream.getvalue()


def npy(array: np.ndarray, **more: bool) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **more)
    return stream.getvalue()


def zeros(rows: int) -> bytes:
    """The head of an array with so many rows, and as many zeros as compress into little."""
    header = io.BytesIO()
    description = {"descr": "<f4", "fortran_order": False, "shape": (rows, 64)}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue() + bytes(1 << 28)


@hostile(
    "golden_outputs",
    Reason.MALFORMED,
    Reason.GOLDEN_MISMATCH,
    Reason.MEMORY_EXCEEDED,
    sample=6,
)
def golden_outputs(ground: Ground) -> Iterator[Attempt]:
    """Golden files that are bombs, pickles, lies, or not archives at all."""
    spec = linear_spec(ground.folder / "golden")
    x, y = npy(pixels(2)), npy(linear(pixels(2)))
    good = {"input.0.npy": x, "output.0.npy": y}
    trap = ground.folder / "unpickled"
    pickled = npy(np.array([Bomb(trap)], dtype=object), allow_pickle=True)
    whole = packed(good)
    spoilt = bytearray(packed({**good, "input.0.npy": x * 1}))
    spoilt[60] ^= 0xFF
    cases: dict[str, bytes] = {
        "a bomb": packed({**good, "input.0.npy": zeros(1 << 20)}),
        "a head that promises too much": packed({**good, "input.0.npy": zeros(1 << 50)[:4096]}),
        "a head with a negative shape": packed({**good, "input.0.npy": x.replace(b"(2,", b"(-2")}),
        "a head that is code": packed({**good, "input.0.npy": x.replace(b"False", b"f(x,)")}),
        "a pickle inside": packed({**good, "input.0.npy": pickled}),
        "a pickle": pickled[128:],
        "outputs that lie": packed({**good, "output.0.npy": npy(linear(pixels(2)) + 1)}),
        "outputs that are no numbers": packed(
            {**good, "output.0.npy": npy(linear(pixels(2)) * np.float32(np.nan))}
        ),
        "outputs without end": packed(
            {**good, "output.0.npy": npy(np.full((2, 10), np.inf, "f4"))}
        ),
        "members that lead outside": packed({**good, "../../evil.npy": x}),
        "a member more": packed({**good, "more.npy": x}),
        "a member less": packed({"input.0.npy": x}),
        "a damaged member": bytes(spoilt),
        "cut": whole[: len(whole) // 2],
        "not an archive": b"PK\x03\x04 not a zip",
        "nothing": b"",
        "deep archive of archives": packed({"input.0.npy": whole, "output.0.npy": whole}),
        "bzip2": packed(good, zipfile.ZIP_BZIP2).replace(b"BZh", b"BZx"),
        "lzma": packed(good, zipfile.ZIP_LZMA)[:-200] + bytes(200),
        "method 99": whole.replace(b"\x08\x00", b"\x63\x00"),
        "encrypted": whole.replace(_PLAIN, _PLAIN[:-1] + b"\x01"),
    }
    for name, raw in cases.items():
        path = ground.folder / f"golden-{len(raw)}-{name.replace(' ', '-')}.npz"
        path.write_bytes(raw)

        def go(path: Path = path) -> object:
            try:
                return tried(with_file(spec, spec.variant.golden, stored(path)))
            finally:
                assert not trap.exists(), "a pickle was run"

        yield Attempt(name, go)
