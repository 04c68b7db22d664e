"""What docs/guides/sources.md shows is run."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefleet_agent.config import load
from tests.agent.hosting import RunningHost, running, until
from tests.agent.models import linear_spec, pixels
from tests.agent.sourcing import source

GUIDE = Path(__file__).parents[2] / "docs/guides/sources.md"
BLOCKS = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
TABLES: dict[str, dict[str, Any]] = {
    table["name"]: table for text in BLOCKS for table in tomllib.loads(text).get("sources", [])
}
(PACKAGE,) = (tomllib.loads(text) for text in BLOCKS if "[project]" in text)
(MODULE,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    folder, site = tmp_path_factory.mktemp("host"), tmp_path_factory.mktemp("site")
    (site / "edgefleet_ramp.py").write_text(MODULE)
    project = PACKAGE["project"]
    info = site / f"edgefleet_ramp-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1\n")
    points = "".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in each.items())
        for group, each in project["entry-points"].items()
    )
    (info / "entry_points.txt").write_text(points)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{site}:{os.environ.get('PYTHONPATH', '')}")
        patch.syspath_prepend(str(site))
        with running(listen=(f"unix:{folder}/serve.sock",)) as here:
            assert here.do(here.host.activate((linear_spec(folder),))) is None
            yield here


def test_every_table_is_one_that_is_taken(here: RunningHost, tmp_path: Path) -> None:
    text = "\n".join(block for block in BLOCKS if "[[sources]]" in block)
    (tmp_path / "agent.toml").write_text(text)
    found = load(None, tmp_path).sources
    assert [config.name for config in found] == list(TABLES)
    assert {config.kind for config in found} == {
        *("folder", "camera", "sensor", "mqtt", "synthetic", "ramp")
    }


def test_the_folder_of_the_guide(here: RunningHost, tmp_path: Path) -> None:
    with source(here, tmp_path, **TABLES["inbox"]) as made:
        until(lambda: (tmp_path / "inbox" / "failed").exists())
        draft = tmp_path / "inbox" / "a.json.part"
        draft.write_text(json.dumps(pixels(1).tolist()))
        draft.rename(tmp_path / "inbox" / "a.json")
        until(lambda: (tmp_path / "inbox" / "done" / "a.json").exists())
        until(lambda: len(made.results) == 1)


def test_the_noise_of_the_guide(here: RunningHost, tmp_path: Path) -> None:
    with source(here, tmp_path, **TABLES["noise"]) as made:
        until(lambda: made.process.pid is None and made.counts["read"] == 20)
    kept = len(list((tmp_path / "results").iterdir()))
    assert kept == made.counts["predicted"] >= 1
    assert made.counts["predicted"] + made.counts["dropped"] == 20


def test_the_plugin_of_the_guide(
    here: RunningHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with source(here, tmp_path, **TABLES["slope"]) as made:
        until(lambda: made.process.pid is None and made.counts["predicted"] == 3)
    assert sum("digits@1: y class" in line for line in caplog.messages) == 3
    with source(here, tmp_path, **TABLES["slope"], typo=1) as made:
        until(lambda: made.process.restarts == 1)
    assert "slope: unknown option 'typo'" in caplog.text
