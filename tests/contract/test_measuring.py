"""Jobs of measuring and their archives: what goes in comes out, and nothing else does."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgefleet_contract.bundle import Digest, Format, TensorSpec, Variant, sha256
from edgefleet_contract.errors import Malformed, OperatorError, PeerError, Unverified
from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_contract.measuring import (
    Board,
    Candidate,
    Figures,
    Invitation,
    MeasureJob,
    MeasureReport,
    Moment,
    Result,
    open_job,
    parse_invitation,
    parse_job,
    parse_report,
    render_job,
    render_report,
    sign_job,
)
from edgefleet_contract.measuring_archive import read_archive, read_folder, write_archive
from edgefleet_contract.reasons import Reason

KEY = PrivateKey.generate_p256()
FILES = {sha256(raw): raw for raw in (b"a model", b"golden vectors")}
MODEL, GOLDEN = FILES
X = TensorSpec("x", "float32", (-1, 4))
ONE = Candidate(
    "one",
    Variant("v", Format.ONNX, "int8", "v/m.onnx", "v/g.npz", 0, (X,), (X,), {"onnxruntime": "1"}),
    {"v/m.onnx": MODEL, "v/g.npz": GOLDEN},
)
JOB = MeasureJob((ONE, replace(ONE, name="two")), repeat=3)


def archive(folder: Path, job: MeasureJob = JOB, signed: bytes | None = None) -> bytes:
    places = {}
    for digest, raw in FILES.items():
        places[digest] = folder / f"source-{digest}"
        places[digest].write_bytes(raw)
    to = io.BytesIO()
    write_archive(job, places, to, signed=signed)
    return to.getvalue()


def read(raw: bytes, folder: Path, *, max_bytes: int = 1000) -> MeasureJob:
    folder.mkdir(exist_ok=True)
    return read_archive(io.BytesIO(raw), folder, max_bytes=max_bytes)


def members(*found: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    to = io.BytesIO()
    with tarfile.open(fileobj=to, mode="w") as tar:
        for name, raw in found:
            entry = tarfile.TarInfo(name)
            entry.size, entry.linkname = len(raw), "/etc/passwd"
            if name != "job.json":
                entry.type = kind
            tar.addfile(entry, io.BytesIO(raw))
    return to.getvalue()


def test_a_job_survives_its_bytes_and_its_signature() -> None:
    assert parse_job(render_job(JOB)) == JOB
    assert open_job(sign_job(JOB, KEY), KeyRing([KEY.public])) == (JOB, KEY.public.id)
    with pytest.raises(Unverified):
        open_job(sign_job(JOB, KEY), KeyRing([PrivateKey.generate_p256().public]))
    with pytest.raises(Unverified):
        open_job(sign_job(JOB, KEY), KeyRing([]))


def test_reports_and_invitations_survive_their_bytes() -> None:
    board = Board("arm64", "aarch64", "Pi", "os", "6", "3.11", "1", 4, 900, {"litert": "2.1"})
    figures = Figures("litert", "xnnpack", 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 20, 1, 3, 0.5)
    results = (Result("one", 0, figures), Result("two", 0, None, Reason.TRIAL_CRASHED, "SIGSEGV"))
    told = MeasureReport(board, Moment(0.5, 51.0, 1800.0, "ondemand", ()), Moment(1.0), results)
    assert parse_report(render_report(told), what="it") == told
    invited = Invitation("cam-1", board, "c" * 32, 64, 600)
    assert parse_invitation(render_report(invited), what="it") == invited


def test_an_archive_gives_the_job_and_its_files_once(tmp_path: Path) -> None:
    assert read(archive(tmp_path), tmp_path / "out") == JOB
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert found == FILES


def test_a_folder_is_read_and_held_against_its_digests(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_bytes(render_job(JOB))
    for digest, raw in FILES.items():
        (tmp_path / digest).write_bytes(raw)
    assert read_folder(tmp_path) == JOB
    (tmp_path / MODEL).write_bytes(b"another")
    with pytest.raises(Malformed, match="another one"):
        read_folder(tmp_path)
    (tmp_path / MODEL).unlink()
    with pytest.raises(OperatorError):
        read_folder(tmp_path)


def test_who_has_a_command_line_sends_no_signature(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match=r"begins with 'job\.dsse\.json'"):
        read(archive(tmp_path, signed=sign_job(JOB, KEY)), tmp_path / "out")


def test_a_signed_archive_is_admitted_before_a_file_is_read(tmp_path: Path) -> None:
    def admit(name: str, raw: bytes) -> MeasureJob:
        assert list((tmp_path / "out").iterdir()) == []
        return open_job(raw, KeyRing([]))

    (tmp_path / "out").mkdir()
    raw = archive(tmp_path, signed=sign_job(JOB, KEY))
    with pytest.raises(Unverified):
        read_archive(io.BytesIO(raw), tmp_path / "out", max_bytes=1000, admit=admit)
    assert list((tmp_path / "out").iterdir()) == []


JOB_FILE = ("job.json", render_job(JOB))
BAD: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda _: b"",
    "no tar": lambda _: b"x" * 2000,
    "cut short": lambda folder: archive(folder)[:2200],
    "no job first": lambda _: members((MODEL, b"a model"), JOB_FILE),
    "a path": lambda _: members(JOB_FILE, ("../escaped", b"a model")),
    "a stranger": lambda _: members(JOB_FILE, (sha256(b"x"), b"x")),
    "another file": lambda _: members(JOB_FILE, (MODEL, b"another"), (GOLDEN, FILES[GOLDEN])),
    "a file twice": lambda _: members(JOB_FILE, (MODEL, b"a model"), (MODEL, b"a model")),
    "a link": lambda _: members(JOB_FILE, (MODEL, b""), kind=tarfile.SYMTYPE),
    "a hard link": lambda _: members(JOB_FILE, (MODEL, b""), kind=tarfile.LNKTYPE),
    "a device": lambda _: members(JOB_FILE, (MODEL, b""), kind=tarfile.CHRTYPE),
    "one missing": lambda _: members(JOB_FILE, (MODEL, b"a model")),
    "no job": lambda _: members(("job.json", b"{}")),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_such_archive_is_refused_and_escapes_nowhere(what: str, tmp_path: Path) -> None:
    with pytest.raises(PeerError):
        read(BAD[what](tmp_path), tmp_path / "out")
    assert not (tmp_path / "escaped").exists()


def test_files_beyond_what_is_taken_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="larger than 10 bytes"):
        read(archive(tmp_path), tmp_path / "out", max_bytes=10)


@pytest.mark.parametrize(
    "change",
    [
        {"candidates": ()},
        {"candidates": (ONE, ONE)},
        {"repeat": 0},
        {"runs": 1},
        {"seconds": 3600},
        {"timeout_s": 0},
        {"memory_mib": -1},
        {"schema": "edgefleet.measure/9"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_job_out_of_range_is_none(change: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        replace(JOB, **change)  # type: ignore[arg-type]  # one field of any type


@pytest.mark.parametrize(
    "change",
    [{"name": "../x"}, {"files": {}}, {"labels": "l.txt"}, {"files": {"v/m.onnx": Digest("x")}}],
    ids=str,
)
def test_a_candidate_has_all_its_files(change: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        replace(ONE, **change)  # type: ignore[arg-type]  # one field of any type
