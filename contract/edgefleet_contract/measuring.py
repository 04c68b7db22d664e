"""What a desk asks a board to measure, and what the board answers: values, and their bytes.

A job names candidates, each a variant with its files by digest; it says nothing about how a board
runs models, which is the board's own affair. A report says what the board is, how it was doing, and
what each candidate cost, or why it could not be measured. Spec: [recipe-15].

Laws: `parse_job(render_job(job)) == job`; `parse_report(render_report(report)) == report`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final

from edgefleet_contract import canonical, codec
from edgefleet_contract.bundle import Digest, Variant, is_digest, is_name
from edgefleet_contract.envelope import open_envelope, render_envelope, seal
from edgefleet_contract.errors import Malformed
from edgefleet_contract.keys import KeyId, KeyRing, Signer
from edgefleet_contract.reasons import Reason

JOB_SCHEMA: Final = "edgefleet.measure/1"
REPORT_SCHEMA: Final = "edgefleet.measured/1"
PAYLOAD_TYPE: Final = "application/vnd.edgefleet.measure+json"
MAX_CANDIDATES: Final = 64
MAX_REPEAT: Final = 20
MAX_RUNS: Final = 100_000
MAX_REPORT_BYTES: Final = 4 * 1024 * 1024
ANY_ANSWER_E6: Final = 10**15
"""A tolerance for a candidate that is not finished: how far its answers are off is told, and no
difference that is a number is a failure."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A variant to measure. `files` are all that it needs, its golden vectors included, by the
    paths that the variant names; `labels` is the path of the labels, or empty."""

    name: str
    variant: Variant
    files: dict[str, Digest]
    labels: str = ""

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise Malformed(f"candidate {self.name[:80]!r}")
        needed = {*self.variant.files, self.variant.golden, *filter(None, (self.labels,))}
        if missing := sorted(needed - set(self.files)):
            raise Malformed(f"candidate {self.name}: no file for {missing[0][:80]!r}")
        if not all(map(is_digest, self.files.values())):
            raise Malformed(f"candidate {self.name}: a digest is not 64 lower-case hex digits")


@dataclass(frozen=True, slots=True)
class MeasureJob:
    """What is to be measured, in turns: `repeat` rounds, in each of them every candidate once, in a
    process of its own.

    `runs` inferences are timed in each at most, for `seconds` at most; a candidate has `timeout_s`
    in each round, and `memory_mib` of private memory (0: what the board gives). `challenge` is the
    board's own, where it asks for one.
    """

    candidates: tuple[Candidate, ...]
    repeat: int = 1
    runs: int = 200
    seconds: int = 5
    timeout_s: int = 120
    memory_mib: int = 0
    challenge: str = ""
    schema: str = JOB_SCHEMA

    def __post_init__(self) -> None:
        names = [one.name for one in self.candidates]
        for says, holds in (
            (f"1 to {MAX_CANDIDATES} candidates", 1 <= len(names) <= MAX_CANDIDATES),
            ("candidates of two names", len(set(names)) == len(names)),
            (f"repeat 1 to {MAX_REPEAT}", 1 <= self.repeat <= MAX_REPEAT),
            (f"runs 10 to {MAX_RUNS}", 10 <= self.runs <= MAX_RUNS),
            ("seconds 1 to 60", 1 <= self.seconds <= 60),
            ("timeout_s 1 to 3600", 1 <= self.timeout_s <= 3600),
            ("memory_mib 0 or more", self.memory_mib >= 0),
            (f"schema {JOB_SCHEMA}", self.schema == JOB_SCHEMA),
        ):
            if not holds:
                raise Malformed(f"a job has {says}")

    @property
    def blobs(self) -> frozenset[Digest]:
        """The digests of all its files."""
        return frozenset(digest for one in self.candidates for digest in one.files.values())


@dataclass(frozen=True, slots=True)
class Board:
    """What a board is. `hw` is the hardware class that bundles use, `machine` what `uname -m` says.

    `runtimes` are those that it would serve with, and their versions; `threads` those of one
    inference. `is_emulated`: the processor is imitated by another kind, so that times are not those
    of a board.
    """

    hw: str
    machine: str
    model: str
    os: str
    kernel: str
    python: str
    agent: str
    cpus: int
    memory_mib: int
    runtimes: dict[str, str]
    threads: int = 1
    is_emulated: bool = False


@dataclass(frozen=True, slots=True)
class Moment:
    """How a board is doing; None and empty where it cannot tell.

    `throttled` are the firmware's words for what holds the processor back now, or did since it was
    started; `mhz` the clock of the first core; `governor` the kernel's rule for it.
    """

    load1: float
    celsius: float | None = None
    mhz: float | None = None
    governor: str = ""
    throttled: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """What one candidate cost in one round.

    `open_ms`: its bytes to a session; `load_ms`: to the first answer. Then single inferences, µs,
    over `runs` of them; `disturbed` more were interrupted for another process and left out. Peak
    memory is what the model added to a process that has its runtime.
    """

    engine: str
    accelerator: str
    open_ms: float
    load_ms: float
    p50_us: float
    p95_us: float
    p99_us: float
    ram_mib: float
    runs: int
    disturbed: int
    vectors: int
    max_abs_err: float
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """A candidate in a round: its figures, or why there are none."""

    name: str
    round: int
    figures: Figures | None = None
    reason: Reason | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class MeasureReport:
    """What a board answers to a job."""

    board: Board
    before: Moment
    after: Moment
    results: tuple[Result, ...]
    schema: str = field(default=REPORT_SCHEMA)


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a running agent says to who may measure on it: what it is, how much it takes, and the
    challenge that the next job must hold."""

    device: str
    board: Board
    challenge: str
    max_mib: int
    max_s: int


def render_job(job: MeasureJob) -> bytes:
    """The canonical bytes of a job."""
    return canonical.render(codec.encode(job))


def parse_job(raw: bytes, *, what: str = "job") -> MeasureJob:
    """The job in canonical bytes.

    Raises:
        Malformed: naming the field and what was found there.
    """
    return codec.decode(MeasureJob, canonical.parse(raw, what=what), what=what)


def sign_job(job: MeasureJob, key: Signer) -> bytes:
    """The signed job: an envelope of a type of its own, so that it passes for nothing else."""
    return render_envelope(seal(render_job(job), payload_type=PAYLOAD_TYPE, keys=(key,)))


def open_job(raw: bytes, ring: KeyRing) -> tuple[MeasureJob, KeyId]:
    """The job in an envelope that a key of `ring` signed, and which.

    Raises:
        Malformed: it is none.
        Unverified: it is signed by nobody that is trusted.
    """
    limit = 2 * canonical.MAX_BYTES  # base64, and the signatures
    found = open_envelope(raw, payload_type=PAYLOAD_TYPE, ring=ring, what="job", max_bytes=limit)
    return parse_job(found.payload), min(found.signers)


def render_report(report: MeasureReport | Invitation) -> bytes:
    """The JSON of a report, or of an invitation."""
    return json.dumps(codec.encode(report)).encode("utf-8")


def parse_report(raw: bytes, *, what: str) -> MeasureReport:
    """The report in what a board said; fields that are not known are passed over.

    Raises:
        Malformed: it is none.
    """
    value = canonical.parse_message(raw, what=what, max_bytes=MAX_REPORT_BYTES)
    report = codec.decode(MeasureReport, value, what=what, unknown=True)
    if report.schema != REPORT_SCHEMA:
        raise Malformed(f"{what}: schema {report.schema[:60]!r}, {REPORT_SCHEMA!r} is read here")
    return report


def parse_invitation(raw: bytes, *, what: str) -> Invitation:
    """The invitation in what an agent said.

    Raises:
        Malformed: it is none.
    """
    value = canonical.parse_message(raw, what=what)
    return codec.decode(Invitation, value, what=what, unknown=True)
