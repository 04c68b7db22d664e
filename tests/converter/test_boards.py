"""Measuring from the desk: places as people write them, rounds made one, limits, this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgefleet_contract.bundle import Limits, TensorSpec
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.measuring import (
    ANY_ANSWER_E6,
    Board,
    Candidate,
    Figures,
    MeasureJob,
    MeasureReport,
    Moment,
    Result,
)
from edgefleet_contract.reasons import Reason
from edgefleet_converter.boards.building import limits_on
from edgefleet_converter.boards.figures import (
    OnBoard,
    first_trouble,
    heard,
    name_board,
    slowest_p50,
)
from edgefleet_converter.boards.here import measure_here
from edgefleet_converter.boards.places import Here, Https, Ssh, kind_of, parse_place
from edgefleet_converter.boards.ssh import VARIABLE, command_of
from edgefleet_converter.cli import run
from edgefleet_converter.recipe import Headroom, Worker, parse_recipe
from tests.agent.measuring import job_of, specs
from tests.agent.models import make_spec

PI = Board("arm64", "aarch64", "Raspberry Pi 4", "os", "6", "3.11", "1", 4, 900, {"litert": "2.1"})
ROUND = Figures("litert", "xnnpack", 1.0, 2.0, 30.0, 40.0, 50.0, 6.0, 20, 1, 3, 0.5)
PIN = "sha256//" + "A" * 43 + "="
DATA = '[data]\ncalibration = "c.npy"\nheld_out = "h.npz"\n'


def test_places_as_people_write_them() -> None:
    assert parse_place("here") == Here()
    assert parse_place("ssh://cam-1") == Ssh("cam-1")
    assert parse_place("ssh://pi@10.0.0.7:2222/opt/bin/edge-agent") == Ssh(
        "10.0.0.7", "pi", 2222, "/opt/bin/edge-agent"
    )
    assert parse_place(f"https://cam-1.local:8501#{PIN}") == Https("cam-1.local", 8501, PIN)
    assert [kind_of(one) for one in ("here", "ssh://a", "https://a:1")] == ["here", "ssh", "https"]


@pytest.mark.parametrize(
    "text",
    [
        *("", "cam-1", "http://cam-1:8501", "https://cam-1", "ssh://", "ssh://pi:word@cam-1"),
        *("ssh://-oProxyCommand=x", "ssh://-l@cam-1", "ssh://cam-1/bin/edge-agent;reboot"),
        *("ssh://cam-1/$(reboot)", "ssh://cam-1?x", "https://a:1#sha256//short", "ssh://a:99999"),
        *("ssh://cam-1/bin/a b", "https://a:1/path", "ssh://pi@-oProxyCommand=x"),
    ],
)
def test_what_is_no_place_and_what_ssh_or_a_shell_would_take_for_more_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="is no place to measure at"):
        parse_place(text)


def test_ssh_asks_nobody_and_may_be_another_command() -> None:
    plain = command_of(Ssh("cam-1", "pi"), {})
    assert plain[0] == "ssh"
    assert "BatchMode=yes" in plain
    assert plain[-4:] == ["-l", "pi", "--", "cam-1"]
    assert command_of(Ssh("cam-1"), {VARIABLE: "ssh -F 'a b'"})[:3] == ["ssh", "-F", "a b"]


def test_rounds_become_one_and_a_failure_in_one_is_a_failure() -> None:
    slow = replace(ROUND, p95_us=90.0, ram_mib=9.0)
    quick = replace(ROUND, p95_us=10.0)
    results = tuple(Result("good", i, one) for i, one in enumerate((ROUND, slow, quick)))
    results += (Result("bad", 0, ROUND), Result("bad", 1, None, Reason.TRIAL_CRASHED, "SIGSEGV"))
    results += (Result("other", 0, None, Reason.NO_VARIANT, "it needs onnxruntime"),)
    found = heard(MeasureReport(PI, Moment(0.1), Moment(0.2), results), name="pi", way="ssh")
    good = found.models["good"]
    assert (good.p95_us, good.ram_mib, good.rounds, good.runs) == (40.0, 9.0, 3, 60)
    assert good.runtime == "litert 2.1"
    assert found.models["bad"].trouble == "trial_crashed: SIGSEGV"
    assert found.models["other"].is_passed_over
    every = list(found.models.values())
    assert slowest_p50(every) == 30.0
    assert first_trouble(every) == "on pi: trial_crashed: SIGSEGV"
    assert first_trouble([every[0], every[2]]) == ""


def test_boards_have_names_that_tell_them_apart_and_nobody_where_they_are() -> None:
    names: list[str] = []
    for board, way in ((PI, "ssh"), (PI, "https"), (PI, "here")):
        names.append(name_board(board, way, names))
    assert names == ["Raspberry Pi 4 (arm64)", "Raspberry Pi 4 (arm64) 2", "this machine (arm64)"]
    imitated = replace(PI, model="unknown", is_emulated=True)
    assert name_board(imitated, "ssh", names) == "unknown (arm64, emulated)"


def test_the_limits_of_a_class_are_those_of_its_slowest_board() -> None:
    def on(hw: str, **figures: float) -> OnBoard:
        return OnBoard("b", hw, **{"load_ms": 1.0, "ram_mib": 2.0, "p95_us": 1.0} | figures)  # type: ignore[arg-type]

    room = Headroom(p95_floor_ms=0, load_floor_ms=0, ram_extra_mib=10)
    found = limits_on(
        [
            on("arm64", p95_us=100.0, load_ms=50.0),
            on("arm64", p95_us=900.0, ram_mib=30.0),
            on("armhf", p95_us=5.0),
            OnBoard("b", "x86-64", trouble="no_variant", is_passed_over=True),
        ],
        room,
    )
    assert found == {"arm64": Limits(40, 500, 18_000), "armhf": Limits(12, 10, 100)}


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ('devices = ["cam-1"]', "is no place to measure at"),
        ('devices = ["here", "here"]', "names one twice"),
        ('devices = ["here"]\nenabled = false', "needs measure.enabled"),
        ("repeat = 0", "measure.repeat"),
        ("timeout_s = 0", "measure.timeout_s"),
    ],
)
def test_a_recipe_says_where_as_it_must(lines: str, why: str) -> None:
    with pytest.raises(OperatorError, match=why):
        parse_recipe(f"{DATA}[measure]\n{lines}\n", folder=Path())


def test_on_this_machine_what_fails_is_told_and_the_rest_is_measured(tmp_path: Path) -> None:

    x, flag = TensorSpec("x", "float32", (-1, 64)), np.zeros((1, 64), np.float32)
    y = TensorSpec("y", "float32", (-1, 10))
    wrong = make_spec(
        tmp_path, "linear1.onnx", {x: flag}, {y: np.zeros((1, 10), np.float32)}, slot="wrong"
    )
    found = {k: v for k, v in specs(tmp_path).items() if k in ("good", "crash", "tflite")}
    job, places = job_of(found | {"wrong": wrong})
    report = measure_here(job, places, Worker(), lambda _: None)
    by_name = {one.name: one for one in report.results}
    assert by_name["crash"].reason is Reason.TRIAL_CRASHED
    assert by_name["wrong"].reason is Reason.GOLDEN_MISMATCH
    for name in ("good", "tflite"):
        figures = by_name[name].figures
        assert figures is not None
        assert figures.runs == 10
        assert 0 < figures.p50_us <= figures.p99_us
    lax = _lax(job, "wrong")
    (told,) = measure_here(lax, places, Worker(), lambda _: None).results
    assert told.figures is not None
    assert told.figures.max_abs_err == 1.0


def _lax(job: MeasureJob, name: str) -> MeasureJob:
    one = next(each for each in job.candidates if each.name == name)
    variant = replace(one.variant, max_abs_err_e6=ANY_ANSWER_E6)
    return MeasureJob((Candidate(name, variant, one.files),), runs=10, seconds=1)


def test_a_word_that_is_no_place_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.toml").write_text(DATA)
    words = ("build", "m", "--recipe", str(tmp_path / "r.toml"), "--out", str(tmp_path / "out"))
    more = ("--model", "m", "--version", "1", "--key", "k.pem", "--device", "-oProxyCommand=x")
    assert run([*words, *more]) == 1
    assert "no place to measure at" in capsys.readouterr().err
    graph = 'outputs = ["y"]\n[data]\nheld_out = "h.npz"\n[models.a]\nonnx = "a.onnx"\n'
    graph += '[[nodes]]\nmodel = "a"\ninputs = ["x"]\noutputs = ["y"]\n'
    (tmp_path / "g.toml").write_text(graph)
    PrivateKey.generate_p256().save(tmp_path / "k.pem")
    joining = ["join", str(tmp_path / "g.toml"), "--out", str(tmp_path / "out"), *more[:4]]
    joining += ["--key", str(tmp_path / "k.pem"), "--device"]
    assert run([*joining, "-oProxyCommand=x"]) == 1
    assert "no place to measure at" in capsys.readouterr().err
    assert run([*joining, "here", "--device", "here"]) == 1
    assert "names one twice" in capsys.readouterr().err
