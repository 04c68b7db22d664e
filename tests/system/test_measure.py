"""Models measured on boards from the desk: a real sshd, a real agent's door, this machine."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from edgefleet_agent.adapters.lan_certificate import read_certificate
from edgefleet_agent.cli import main
from edgefleet_agent.config import Config
from edgefleet_agent.config import load as load_config
from edgefleet_contract.bundle import Format, Limits
from edgefleet_contract.errors import OperatorError, TransientError, Unverified
from edgefleet_contract.keys import PrivateKey
from edgefleet_converter.arrays import save_tensors
from edgefleet_converter.bench import Bench, hardware_here
from edgefleet_converter.boards.asking import Asker, asker_of
from edgefleet_converter.boards.packing import Pack
from edgefleet_converter.boards.ssh import VARIABLE
from edgefleet_converter.cli import run
from edgefleet_converter.pipeline import Built, build
from edgefleet_converter.recipe import Measure, Recipe, Worker, load_recipe
from edgefleet_converter.search.cache import Cache
from edgefleet_converter.search.look import look
from edgefleet_converter.search.on_boards import speeds
from edgefleet_converter.search.ranking import NEAR_TIME
from edgefleet_converter.search.wishes import Objective
from edgefleet_converter.targets import Target
from tests.agent.measuring import PUBLISHER, job_of
from tests.agent.models import HERE, linear_spec, pixels
from tests.agent.test_measure_door import Measured, measuring
from tests.system.boards import LoggedIn, board

TEXT = """
targets = ["onnx-as-is"]
[data]
held_out = "held_out.npy"
[measure]
runs = 20
repeat = 2
devices = ["{ssh}", "{https}", "here"]
token_file = "token"
ca = "ca.pem"
[limits]
p95_floor_ms = 0
load_floor_ms = 0
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoggedIn]:
    with board(tmp_path_factory.mktemp("board")) as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, found.ssh)
        yield found


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    with measuring(tmp_path_factory.mktemp("agent")) as found:
        yield found


@dataclass(frozen=True)
class Desk:
    """A folder with a recipe that names three places, and the model that it is for."""

    folder: Path

    @property
    def model(self) -> Path:
        return HERE / "linear1.onnx"

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.toml"

    def only(self, *devices: str) -> Recipe:
        recipe = load_recipe(self.recipe)
        return replace(recipe, measure=replace(recipe.measure, devices=devices))


@pytest.fixture(scope="module")
def desk(here: LoggedIn, agent: Measured, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("desk")
    np.save(folder / "held_out.npy", pixels(24))
    (folder / "token").write_text(agent.secret + "\n")
    shutil.copy(agent.here.lan.certificate_file, folder / "ca.pem")
    (folder / "recipe.toml").write_text(TEXT.format(ssh=here.place, https=agent.here.url))
    (folder / "pub.pem").write_text(PUBLISHER.public.pem)
    return Desk(folder)


@pytest.fixture(scope="module")
def built(desk: Desk) -> Built:
    recipe = load_recipe(desk.recipe)
    out = desk.folder / "out"
    return build(desk.model, recipe, out=out, model="linear", version=1, key=PUBLISHER)


def test_limits_are_those_of_the_boards_and_the_report_says_which(built: Built) -> None:
    boards = built.report.boards
    assert [one.way for one in boards] == ["ssh", "https", "here"]
    assert boards[2].name.startswith("this machine (")
    assert len({one.name for one in boards}) == 3
    (variant,), (told,) = built.manifest.variants, built.report.variants
    assert [on.rounds for on in told.boards] == [2, 2, 2]
    assert all(on.runtime.startswith("onnxruntime 1.") for on in told.boards)
    assert all(0 < on.p50_us <= on.p95_us <= on.p99_us for on in told.boards)
    hw = boards[0].board.hw
    assert list(variant.limits) == [hw]
    assert variant.limits[hw] == Limits(
        ram_mib=256 + round(max(on.ram_mib for on in told.boards)),
        load_ms=round(10 * max(on.load_ms for on in told.boards)),
        p95_us=round(20 * max(on.p95_us for on in told.boards)),
    )


def test_nothing_of_a_bundle_says_where_its_boards_are(built: Built) -> None:
    for path in built.path.rglob("*.json"):
        said = path.read_text()
        assert "127.0.0.1" not in said
        assert "ssh://" not in said
        assert "ca.pem" not in said


def test_bench_of_a_bundle_prints_what_each_board_says(
    desk: Desk, built: Built, here: LoggedIn, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("bench", str(built.path), "--trust", str(desk.folder / "pub.pem"), "--runs", "20")
    assert run([*words, "--device", here.place, "--device", "here", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["boards"]
    assert [one["report"]["way"] for one in told] == ["ssh", "here"]
    assert [one["models"]["onnx-as-is"]["trouble"] for one in told] == ["", ""]
    assert run([*words]) == 0
    assert "measured on this machine, not on a board" in " ".join(capsys.readouterr().out.split())
    assert run(["bench", str(built.path)]) == 1
    assert "--trust" in capsys.readouterr().err


def test_bench_of_a_recipe_measures_what_it_makes(
    desk: Desk, here: LoggedIn, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("bench", str(desk.model), "--recipe", str(desk.recipe), "--device", here.place)
    assert run([*words, "--runs", "20"]) == 0
    said = capsys.readouterr().out
    assert "onnx-as-is" in said
    assert "onnxruntime" in said


def test_candidates_are_ranked_by_their_slowest_board_and_one_that_fails_is_out(
    desk: Desk, here: LoggedIn, tmp_path: Path
) -> None:
    recipe = desk.only(here.place, "here")
    asker = asker_of(recipe, None)
    assert asker is not None
    save_tensors(tmp_path / "inputs.npz", "input", (pixels(6),))
    found = speeds(
        Bench(recipe, tmp_path, lambda _: None),
        asker,
        Format.ONNX,
        [(HERE / name).read_bytes() for name in ("linear1.onnx", "thorough.onnx")],
        tmp_path / "inputs.npz",
        {"onnxruntime": "1.19.0"},
    )
    assert [one.way for one in found.boards] == ["ssh", "here"]
    quick, slow = found.p50_us
    assert quick is not None
    assert slow is not None
    assert quick < slow
    assert found.troubles == ("", "")
    none = speeds(
        Bench(recipe, tmp_path, lambda _: None),
        replace(asker, wish=replace(asker.wish, devices=(here.place,))),
        Format.ONNX,
        [(HERE / "linear1.onnx").read_bytes()],
        tmp_path / "inputs.npz",
        {"onnxruntime": "99"},
    )
    assert none.p50_us == (None,)


def test_the_search_ranks_by_the_times_of_its_board(
    desk: Desk, here: LoggedIn, tmp_path: Path
) -> None:
    np.save(desk.folder / "calibration.npy", pixels(24))
    recipe = desk.only(here.place)
    wanted = replace(
        recipe,
        data=replace(recipe.data, calibration="calibration.npy"),
        targets=(Target.ONNX_INT8,),
        measure=replace(recipe.measure, repeat=1),
        search=replace(recipe.search, objective=Objective.LATENCY),
    )
    (found,) = look(desk.model, wanted, cache=Cache(tmp_path / "cache"))
    assert [one.way for one in found.boards] == ["ssh"]
    assert found.hardware == found.boards[0].board.hw
    times = {one.name: one.p50_us for one in found.candidates if one.p50_us and not one.outside}
    assert times[found.chosen] <= min(times.values()) * NEAR_TIME


def asked(agent: Measured, tmp_path: Path, key: PrivateKey | None, place: str = "") -> None:
    token = tmp_path / "token"
    token.write_text(agent.secret)
    job, places = job_of({"good": linear_spec(tmp_path)})
    ca = str(agent.here.lan.certificate_file)
    wish = Measure(devices=(place or agent.here.url,), token_file=str(token), ca=ca, runs=20)
    Asker(wish, Worker(), tmp_path, key).ask(Pack(job.candidates, places), lambda _: None)


def test_a_board_that_refuses_says_why(agent: Measured, tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"unknown key .* \(HTTP 403\)"):
        asked(agent, tmp_path, PrivateKey.generate_p256())
    with pytest.raises(OperatorError, match="a publisher's signature"):
        asked(agent, tmp_path, None)


def test_the_token_goes_to_no_board_that_is_another(agent: Measured, tmp_path: Path) -> None:
    known = read_certificate(agent.here.lan.certificate_file).fingerprint
    asked(agent, tmp_path, PUBLISHER, f"{agent.here.url}#{known}")
    before = agent.here.samples("edgefleet_network_requests_total")
    with pytest.raises(Unverified, match="has the key"):
        asked(agent, tmp_path, PUBLISHER, f"{agent.here.url}#sha256//{'A' * 43}=")
    assert agent.here.samples("edgefleet_network_requests_total") == before


def test_a_host_that_has_no_agent_or_cannot_be_reached_is_named(
    here: LoggedIn, tmp_path: Path
) -> None:
    job, places = job_of({"good": linear_spec(tmp_path)})
    pack = Pack(job.candidates, places)

    def ask(place: str) -> None:
        Asker(Measure(devices=(place,)), Worker(), tmp_path).ask(pack, lambda _: None)

    at = "/".join(here.place.split("/")[:3])
    with pytest.raises(OperatorError, match=r"127\.0\.0\.1 has no /no/such/edge-agent"):
        ask(f"{at}/no/such/edge-agent")
    with pytest.raises(TransientError, match=r"ssh to 127\.0\.0\.1"):
        ask("ssh://nobody@127.0.0.1:1")


def test_a_board_of_another_kind_refuses_the_build(
    desk: Desk, here: LoggedIn, tmp_path: Path
) -> None:
    recipe = desk.only(here.place)
    other = replace(recipe, hardware=replace(recipe.hardware, classes=("rpi4",)))
    if hardware_here() == "arm64":
        pytest.skip("this is such a board")
    with pytest.raises(OperatorError, match="runs none of the variants: wrong_hardware"):
        build(desk.model, other, out=tmp_path / "out", model="m", version=1, key=PUBLISHER)
    assert list((tmp_path / "out").iterdir()) == []


GUIDE = (Path(__file__).parents[2] / "docs/guides/measuring.md").read_text()
SSH = "ssh://pi@cam-1.local/opt/edgefleet/bin/edge-agent"
HTTPS = "https://cam-2.local:8501#sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)```", GUIDE, re.DOTALL | re.MULTILINE)


def test_the_guide_does_what_it_says(
    here: LoggedIn,
    agent: Measured,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its boards are the sshd and the agent here, its digits a smaller model of the same sizes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build" / "digits").mkdir(parents=True)
    shutil.copy(HERE / "linear1.onnx", "build/digits/digits.skops")
    np.savez("build/digits/held_out.npz", x=pixels(24))
    PUBLISHER.save(Path("build/publisher.pem"))
    Path("build/publisher.pem.pub").write_text(PUBLISHER.public.pem)
    pin = read_certificate(agent.here.lan.certificate_file).fingerprint
    places = {SSH: here.place, HTTPS: f"{agent.here.url}#{pin}"}
    settings, recipe = blocks("toml")
    assert config_of(tmp_path, settings).serving.measure.enabled
    Path("build/boards.toml").write_text(replaced(recipe, places))
    first = replace(
        load_recipe(Path("build/boards.toml")),
        measure=Measure(runs=20),
        targets=(Target.ONNX_FLOAT32,),
    )
    source = Path("build/digits/digits.skops")
    build(source, first, out="build/bundles", model="digits", version=1, key=PUBLISHER)
    lines = [line for text in blocks("sh") for line in text.replace("\\\n", " ").splitlines()]
    for line in lines:
        program, *words = shlex.split(replaced(line, places), comments=False)
        if program == "edge-agent":
            capsys.readouterr()
            assert main([*words, "--state", str(state_of(agent))]) == 0
            if words[0] == "token":
                Path("build/cam-2.token").write_text(capsys.readouterr().out)
            continue
        assert run([*words, *(["--runs", "20"] if words[0] == "bench" else [])]) == 0, line
    report = json.loads(Path("build/measured/digits-2/report.json").read_text())
    assert [one["way"] for one in report["boards"]] == ["ssh", "https"]


def replaced(text: str, places: dict[str, str]) -> str:
    for known, place in places.items():
        text = text.replace(known, place)
    return text


def config_of(folder: Path, text: str) -> Config:
    path = folder / "agent.toml"
    path.write_text(text)
    return load_config(path, folder)


def state_of(agent: Measured) -> Path:
    """The folder above that of the tokens and the certificate."""
    return Path(agent.here.lan.folder).parent
