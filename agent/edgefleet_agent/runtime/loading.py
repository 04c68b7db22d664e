"""Opens a verified model file in a child process: bytes, digest, session, declared tensors.

Trial and worker load in the same way, so what passed the trial is what serves. A sealed file is
opened here, into memory: nothing of it is written.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgefleet_agent.ports import Failed, FileSeal, ModelSpec
from edgefleet_agent.runtime.engine import CannotLoad, Session, difference
from edgefleet_agent.runtime.engines import open_session
from edgefleet_agent.serving.config import ModelConfig
from edgefleet_contract import codec
from edgefleet_contract.bundle import CHUNK_SIZE, Digest, Limits, Variant, sha256
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import DeviceError, PeerError
from edgefleet_contract.reasons import Reason


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
    serving: ModelConfig = field(default_factory=ModelConfig)


def job_for(
    spec: ModelSpec,
    *,
    threads: int,
    cpu_s: int = 0,
    data_bytes: int = 0,
    serving: ModelConfig | None = None,
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
        serving=serving or ModelConfig(),
    )


def render_job(job: Job) -> Json:
    """The job as a JSON value."""
    return codec.encode(job)


def parse_job(value: Any) -> Job:
    """The job in a message of the parent."""
    return codec.decode(Job, value, what="job")


def load(job: Job, raw: bytes) -> Session | Failed:
    """A session on the model in `raw`, or DIGEST_MISMATCH or LOAD_FAILED with what was found."""
    found = sha256(raw)
    if found != job.model_sha256:
        return Failed(
            Reason.DIGEST_MISMATCH,
            f"{job.variant.model} hashes to {found[:12]}…, signed was {job.model_sha256[:12]}…",
        )
    try:
        session = open_session(job.engine, raw, threads=job.threads)
    except CannotLoad as error:
        return Failed(Reason.LOAD_FAILED, str(error))
    wrong = difference(session, job.variant)
    return Failed(Reason.LOAD_FAILED, wrong) if wrong else session


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
