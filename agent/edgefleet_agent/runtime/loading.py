"""What a child is told of a variant, and its files: read in one place, by the digests signed.

Every file is read by `read_stored`, which holds what it read against the digest that was signed. A
sealed file is opened there, into memory: nothing of it is written.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgefleet_agent.ports import FileSeal, ModelSpec, StoredFile
from edgefleet_agent.runtime.chain import Accelerators
from edgefleet_agent.runtime.engine import Weights
from edgefleet_agent.serving.config import ModelConfig
from edgefleet_contract import codec
from edgefleet_contract.bundle import CHUNK_SIZE, Digest, Limits, Variant, sha256
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import DeviceError, PeerError
from edgefleet_contract.reasons import Reason


@dataclass(frozen=True, slots=True)
class Job:
    """What a child is told on its control channel: the model, how to run it, within what bounds.

    `files` and `labels` are those of `ModelSpec`.
    `cpu_s` (processor seconds) and `data_bytes` (private memory) bound the process; 0: they do not.
    A trial times `runs` inferences at most, for `run_s` at most where it has enough by then.
    """

    engine: str
    variant: Variant
    files: dict[str, StoredFile]
    threads: int
    limits: Limits = field(default_factory=Limits)
    cpu_s: int = 0
    data_bytes: int = 0
    slot: str = ""
    version: int = 0
    labels: str = ""
    accelerators: Accelerators = field(default_factory=Accelerators)
    serving: ModelConfig = field(default_factory=ModelConfig)
    runs: int = 200
    run_s: float = 0.25


def job_for(
    spec: ModelSpec,
    *,
    threads: int,
    accelerators: Accelerators | None = None,
    cpu_s: int = 0,
    data_bytes: int = 0,
    serving: ModelConfig | None = None,
) -> Job:
    """The job of a worker or a trial of `spec`."""
    return Job(
        engine=spec.engine,
        variant=spec.variant,
        files=spec.files,
        threads=threads,
        limits=spec.limits or Limits(),
        cpu_s=cpu_s,
        data_bytes=data_bytes,
        slot=spec.slot,
        version=spec.version,
        labels=spec.labels,
        accelerators=accelerators or Accelerators(),
        serving=serving or ModelConfig(),
    )


def render_job(job: Job) -> Json:
    """The job as a JSON value."""
    return codec.encode(job)


def parse_job(value: Any) -> Job:
    """The job in a message of the parent."""
    return codec.decode(Job, value, what="job")


def read_variant(job: Job) -> dict[str, bytes]:
    """What the variant is made of, by path: its models, and what its steps need.

    Raises:
        PeerError, DeviceError: as `read_stored`.
    """
    return {path: read_file(job, path) for path in job.variant.files}


def map_weights(job: Job) -> Weights:
    """The files of weights beside the variant's model, by name: mapped, so that processes share
    them; in memory where they were sealed.

    Raises:
        PeerError, DeviceError: as `read_stored`.
    """
    variant = job.variant
    folder = variant.model.rpartition("/")[0] + "/"
    known = {*variant.files, variant.golden, variant.drift, job.labels}
    return {
        path.removeprefix(folder): _map(stored, path)
        for path, stored in job.files.items()
        if path not in known and path.startswith(folder)
    }


def _map(stored: StoredFile, path: str) -> bytes | memoryview:
    if stored.seal is not None:
        return read_stored(stored, path)
    try:
        with Path(stored.path).open("rb") as file:
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:  # ValueError: it is empty
        raise DeviceError(f"{path}: {error}", reason=Reason.STORAGE_FAILED) from None
    _hold(sha256(whole), stored, path)
    return whole


def golden_source(job: Job) -> io.BytesIO:
    """Where the golden vectors are read from.

    Raises:
        PeerError, DeviceError: as `read_stored`.
    """
    return io.BytesIO(read_file(job, job.variant.golden))


def read_labels(job: Job) -> tuple[str, ...]:
    """The class names of the bundle, one a line; none where it has none.

    Raises:
        PeerError, DeviceError: as `read_stored`.
    """
    if not job.labels:
        return ()
    return tuple(read_file(job, job.labels).decode("utf-8", "replace").splitlines())


def read_file(job: Job, path: str) -> bytes:
    """A file of the bundle, by its path in it; see `read_stored`."""
    return read_stored(job.files[path], path)


def read_stored(stored: StoredFile, path: str) -> bytes:
    """A file in the clear, and exactly what was signed; `path` names it in errors.

    Raises:
        PeerError: DIGEST_MISMATCH or UNSEALING_FAILED.
        DeviceError: STORAGE_FAILED.
    """
    place = Path(stored.path)
    try:
        raw = place.read_bytes() if stored.seal is None else unsealed(place, stored.seal)
    except OSError as error:
        raise DeviceError(f"{path}: {error.strerror}", reason=Reason.STORAGE_FAILED) from None
    _hold(sha256(raw), stored, path)
    return raw


def _hold(found: Digest, stored: StoredFile, path: str) -> None:
    """Refuse bytes that are not those that were signed."""
    if found != stored.sha256:
        raise PeerError(
            f"{path} hashes to {found[:12]}…, signed was {stored.sha256[:12]}…",
            reason=Reason.DIGEST_MISMATCH,
        )


def unsealed(path: Path, seal: FileSeal) -> bytes:
    """What was sealed in a file.

    Sealed bytes are dropped as they are read, so that a sealed model needs as much memory as one
    in the clear.

    Raises:
        PeerError: UNSEALING_FAILED.
        OSError: the file cannot be read.
    """
    from edgefleet_contract.sealed import open_chunks_with  # brings a crypto library with it

    opened = io.BytesIO()
    with path.open("rb") as file:
        for chunk in open_chunks_with(
            bytes.fromhex(seal.key), seal.bundle, seal.path, _pieces(file)
        ):
            opened.write(chunk)
    return opened.getvalue()


def _pieces(file: io.BufferedReader) -> Iterator[bytes]:
    while piece := file.read(CHUNK_SIZE):
        yield piece
