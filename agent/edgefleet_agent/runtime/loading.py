"""Opens a verified model file in a child process: bytes, digest, session, declared tensors.

Trial and worker load in the same way, so what passed the trial is what serves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgefleet_agent.ports import Failed, ModelSpec
from edgefleet_agent.runtime.engine import CannotLoad, Session, difference
from edgefleet_agent.runtime.engines import open_session
from edgefleet_contract import codec
from edgefleet_contract.bundle import Digest, Limits, Variant, sha256
from edgefleet_contract.canonical import Json
from edgefleet_contract.reasons import Reason


@dataclass(frozen=True, slots=True)
class Job:
    """What a child is told on its control channel: the model, how to run it, within what bounds.

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


def job_for(spec: ModelSpec, *, threads: int, cpu_s: int = 0, data_bytes: int = 0) -> Job:
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
    """The bytes of the model file, or STORAGE_FAILED."""
    try:
        return Path(job.model_path).read_bytes()
    except OSError as error:
        return Failed(Reason.STORAGE_FAILED, f"{job.variant.model}: {error.strerror}")
