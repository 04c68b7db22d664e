"""The plug-in of the guide is run as it stands there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from edgefleet_agent import config as configs
from edgefleet_agent.ports import TrialReport
from edgefleet_agent.runtime.chain import Accelerators
from tests.agent.hosting import running
from tests.agent.models import linear, linear_spec, pixels
from tests.agent.plug_ins import install

pytest.importorskip("onnx")

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "accelerators.md"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


def test_its_settings_are_taken(tmp_path: Path) -> None:
    settings, _ = blocks("toml")
    (tmp_path / "agent.toml").write_text(settings)
    config = configs.load(None, tmp_path)
    assert config.runtime.on().chain("litert") == ("edgetpu", "npu", "hailo", "xnnpack", "cpu")
    assert config.serving.model("digits").accelerators == ("cpu",)


def test_its_plug_in_runs_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks("python")
    _, project = blocks("toml")
    points = tomllib.loads(project)["project"]["entry-points"]["edgefleet.accelerators"]
    names = {name: where.partition(":")[2] for name, where in points.items()}
    install(tmp_path / "site", monkeypatch, code, names)
    with running(accelerators=Accelerators(tuple(names))) as here:
        spec = linear_spec(tmp_path)
        report = here.do(here.host.trial(spec, timeout_s=60))
        assert isinstance(report, TrialReport), report
        assert (report.accelerator, report.passed_over) == ("abacus", ())
        assert here.do(here.host.activate((spec,))) is None
        assert here.stats("digits").accelerator == "abacus"
        x = pixels(2)
        answer = here.predict("digits", {"instances": x.tolist()})
        assert answer.json() == {"predictions": linear(x).tolist()}
