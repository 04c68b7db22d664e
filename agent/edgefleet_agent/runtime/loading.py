"""Opens a verified model file in a child process: bytes, digest, session, declared tensors.

Trial and worker load in the same way, so what passed the trial is what serves. A sealed file is
opened here, into memory: nothing of it is written.

A model is tried on one accelerator after the other. What is missing, does not take the model or
answers its golden vectors wrongly is passed over, with a line that says why. A worker holds the
model against all vectors again unless this accelerator has passed them since the agent began: what
is plugged in can change between trial and reboot.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from edgefleet_agent.ports import Failed, FileSeal, ModelSpec
from edgefleet_agent.runtime.chain import Accelerators, AcceleratorSetup
from edgefleet_agent.runtime.engine import CannotLoad, CannotRun, Session, difference
from edgefleet_agent.runtime.engines import open_session
from edgefleet_agent.runtime.golden import Golden, check
from edgefleet_contract import codec
from edgefleet_contract.bundle import CHUNK_SIZE, Digest, Limits, Variant, sha256
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import DeviceError, PeerError
from edgefleet_contract.reasons import Reason

_LONGEST: Final = 300


@dataclass(frozen=True, slots=True)
class Job:
    """What a child is told on its control channel: the model, how to run it, within what bounds.

    `labels_path` is empty where the bundle names no classes.
    `cpu_s` (processor seconds) and `data_bytes` (private memory) bound the process; 0: they do not.
    """

    engine: str
    model_path: str
    model_sha256: Digest
    golden_path: str
    variant: Variant
    threads: int
    limits: Limits = field(default_factory=Limits)
    cpu_s: int = 0
    data_bytes: int = 0
    model_seal: FileSeal | None = None
    golden_seal: FileSeal | None = None
    slot: str = ""
    version: int = 0
    labels_path: str = ""
    labels_seal: FileSeal | None = None
    accelerators: Accelerators = field(default_factory=Accelerators)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is warm. `accelerator` is what it runs on, `passed_over` says why not on what
    comes before that in the chain; `load_ms` from its bytes to the first answer; `max_abs_err` over
    the golden vectors, where they were checked.
    """

    session: Session
    accelerator: str
    passed_over: tuple[str, ...]
    load_ms: float
    max_abs_err: float


def job_for(
    spec: ModelSpec,
    *,
    threads: int,
    accelerators: Accelerators | None = None,
    cpu_s: int = 0,
    data_bytes: int = 0,
) -> Job:
    """The job of a worker or a trial of `spec`."""
    return Job(
        engine=spec.engine,
        model_path=str(spec.model_path),
        model_sha256=spec.model_sha256,
        golden_path=str(spec.golden_path),
        variant=spec.variant,
        threads=threads,
        limits=spec.limits or Limits(),
        cpu_s=cpu_s,
        data_bytes=data_bytes,
        model_seal=spec.model_seal,
        golden_seal=spec.golden_seal,
        slot=spec.slot,
        version=spec.version,
        labels_path="" if spec.labels_path is None else str(spec.labels_path),
        labels_seal=spec.labels_seal,
        accelerators=accelerators or Accelerators(),
    )


def render_job(job: Job) -> Json:
    """The job as a JSON value."""
    return codec.encode(job)


def parse_job(value: Any) -> Job:
    """The job in a message of the parent."""
    return codec.decode(Job, value, what="job")


def load(job: Job, raw: bytes, golden: Golden, *, on_trial: bool) -> Loaded | Failed:
    """The model in `raw` on the first accelerator that takes it and answers rightly.

    Args:
        job: what to load.
        raw: the bytes, in the clear.
        golden: the vectors; the first is answered in any case.
        on_trial: every vector is checked, on whatever it runs.

    Returns:
        What was loaded; DIGEST_MISMATCH, LOAD_FAILED or GOLDEN_MISMATCH with what was found on the
        last of the chain, and before.

    Raises:
        MemoryError: on the last of the chain.
    """
    found = sha256(raw)
    if found != job.model_sha256:
        return Failed(
            Reason.DIGEST_MISMATCH,
            f"{job.variant.model} hashes to {found[:12]}…, signed was {job.model_sha256[:12]}…",
        )
    passed_over: tuple[str, ...] = ()
    *before, last = job.accelerators.chain(job.engine)
    for name in before:
        try:
            outcome = _load_on(name, job, raw, golden, on_trial)
        except MemoryError:
            outcome = Failed(Reason.MEMORY_EXCEEDED, "ran out of memory")
        if isinstance(outcome, Loaded):
            return replace(outcome, passed_over=passed_over)
        passed_over += (f"{name}: {_plain(outcome.detail)}",)
    outcome = _load_on(last, job, raw, golden, on_trial)
    if isinstance(outcome, Loaded):
        return replace(outcome, passed_over=passed_over)
    if passed_over:
        return Failed(outcome.reason, "; ".join((f"{last}: {outcome.detail}", *passed_over)))
    return outcome


def _plain(text: str) -> str:
    """Of a stranger's message, what a message of ours may hold [wire-3.6]."""
    return "".join(each if each.isprintable() else " " for each in text[:_LONGEST])


def _load_on(name: str, job: Job, raw: bytes, golden: Golden, on_trial: bool) -> Loaded | Failed:
    start = time.perf_counter()
    setup = job.accelerators.setup.get(name, AcceleratorSetup())
    try:
        session = open_session(job.engine, raw, threads=job.threads, accelerator=name, setup=setup)
    except CannotLoad as error:
        return Failed(Reason.LOAD_FAILED, str(error))
    if wrong := difference(session, job.variant):
        return Failed(Reason.LOAD_FAILED, wrong)
    try:
        session.run(golden.first.feeds)
        load_ms = (time.perf_counter() - start) * 1e3
        worst: float | Failed = 0.0
        if on_trial or not job.accelerators.is_proven(name):
            worst = check(session.run, golden, job.variant.max_abs_err_e6)
    except CannotRun as error:
        return Failed(Reason.GOLDEN_MISMATCH, f"an inference failed: {error}")
    if isinstance(worst, Failed):
        return worst
    return Loaded(session, name, (), load_ms, worst)


def read_model(job: Job) -> bytes | Failed:
    """The bytes of the model, or STORAGE_FAILED, UNSEALING_FAILED or DIGEST_MISMATCH."""
    try:
        if job.model_seal is not None:
            return unsealed(Path(job.model_path), job.model_seal)
        return Path(job.model_path).read_bytes()
    except OSError as error:
        return Failed(Reason.STORAGE_FAILED, f"{job.variant.model}: {error.strerror}")
    except (PeerError, DeviceError) as error:
        return Failed(error.reason, error.message)


def golden_source(job: Job) -> Path | io.BytesIO:
    """Where the golden vectors are read from.

    Raises:
        PeerError: UNSEALING_FAILED or DIGEST_MISMATCH.
        DeviceError: STORAGE_FAILED.
    """
    path = Path(job.golden_path)
    if job.golden_seal is None:
        return path
    try:
        return io.BytesIO(unsealed(path, job.golden_seal))
    except OSError as error:
        raise DeviceError(
            f"{job.golden_seal.path}: {error.strerror}", reason=Reason.STORAGE_FAILED
        ) from None


def read_labels(job: Job) -> tuple[str, ...]:
    """The class names of the bundle, one a line; none where it has none.

    Raises:
        PeerError: UNSEALING_FAILED or DIGEST_MISMATCH.
        DeviceError: STORAGE_FAILED.
    """
    if not job.labels_path:
        return ()
    path = Path(job.labels_path)
    try:
        raw = path.read_bytes() if job.labels_seal is None else unsealed(path, job.labels_seal)
    except OSError as error:
        raise DeviceError(f"labels: {error.strerror}", reason=Reason.STORAGE_FAILED) from None
    return tuple(raw.decode("utf-8", "replace").splitlines())


def unsealed(path: Path, seal: FileSeal) -> bytes:
    """What was sealed in a file, exactly the bytes that the manifest names.

    Sealed bytes are dropped as they are read, so that a sealed model needs as much memory as one
    in the clear.

    Raises:
        PeerError: UNSEALING_FAILED, or DIGEST_MISMATCH where something else was sealed.
        OSError: the file cannot be read.
    """
    from edgefleet_contract.sealed import open_chunks_with  # brings a crypto library with it

    opened = io.BytesIO()
    with path.open("rb") as file:
        for chunk in open_chunks_with(
            bytes.fromhex(seal.key), seal.bundle, seal.path, _pieces(file)
        ):
            opened.write(chunk)
    raw = opened.getvalue()
    if sha256(raw) != seal.sha256:
        raise PeerError(
            f"{seal.path}: what was sealed is not what was signed", reason=Reason.DIGEST_MISMATCH
        )
    return raw


def _pieces(file: io.BufferedReader) -> Iterator[bytes]:
    while piece := file.read(CHUNK_SIZE):
        yield piece
