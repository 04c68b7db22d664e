"""Jobs of small real models, as a desk would send them."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgefleet_agent.ports import ModelSpec
from edgefleet_contract.bundle import Digest, TensorSpec
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.measuring import Candidate, MeasureJob, sign_job
from edgefleet_contract.measuring_archive import write_archive
from tests.agent.models import X, Y, asked_spec, linear, linear_spec, make_spec, pixels

PUBLISHER = PrivateKey.generate_p256()


def specs(folder: Path) -> dict[str, ModelSpec]:
    """A good one, one that crashes, one that takes 3 GB, one that is of no board, a good one."""
    x, flag = pixels(3), np.zeros((1,), np.bool_)
    good = linear_spec(folder, slot="good")
    crashing = {TensorSpec(name, "bool", (1,)): flag for name in ("x", "y")}
    taken, given = ({spec: flag} for spec in crashing)
    return {
        "good": good,
        "crash": make_spec(folder, "crash.tflite", taken, given, slot="crash"),
        "greedy": asked_spec(folder, "greedy.onnx", 3000, slot="greedy"),
        "elsewhere": replace(good, variant=replace(good.variant, hw=("pdp11",))),
        "tflite": make_spec(folder, "linear1.tflite", {X: x}, {Y: linear(x)}, slot="tflite"),
    }


def job_of(found: dict[str, ModelSpec], **more: object) -> tuple[MeasureJob, dict[Digest, Path]]:
    """A job of these, and where its files are."""
    candidates = tuple(
        Candidate(name, spec.variant, {path: file.sha256 for path, file in spec.files.items()})
        for name, spec in found.items()
    )
    fields = {"runs": 10, "seconds": 1, "timeout_s": 30, **more}
    return MeasureJob(candidates, **fields), places_of(found.values())  # type: ignore[arg-type]


def places_of(found: Iterable[ModelSpec]) -> dict[Digest, Path]:
    return {file.sha256: Path(file.path) for spec in found for file in spec.files.values()}


def tar_of(job: MeasureJob, places: dict[Digest, Path], key: PrivateKey | None = None) -> bytes:
    """The archive, signed where there is a key."""
    to = io.BytesIO()
    write_archive(job, places, to, signed=sign_job(job, key) if key else None)
    return to.getvalue()
