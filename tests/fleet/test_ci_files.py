"""The pipelines that users copy: their own lines, run by a shell against a real fleet and broker.

Left out is what a runner does before them: the checkout, Python, and `pip install`, whose extras
are held against pyproject.toml.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.reasons import Reason
from tests.fleet.device import Device, enrol
from tests.fleet.running import Fleet, free_port, require
from tests.fleet.stage import FLEET

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]  # it converts models
ROOT: Final = Path(__file__).parents[2]
GITHUB: Final = ROOT / "deploy" / "github-actions.yml"
GITLAB: Final = ROOT / "deploy" / "gitlab-ci.yml"
RECIPE: Final = """
targets = ["onnx-int8"]
[data]
calibration = "calibration.npy"
held_out = "held_out.npz"
[golden]
vectors = 2
[measure]
runs = 10
[card]
description = "Tells digits apart."
licence = "Apache-2.0"
"""


@dataclass
class Site:
    """A repository's checkout, a fleet with one device, and what the forge knows."""

    fleet: Fleet
    checkout: Path
    programs: Path
    known: dict[str, str] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)

    def declare(self, version: int) -> None:
        text = f"version: 1\nmodels:\n  digits: {{version: {version}, max_failures: 1}}\n"
        (self.checkout / "fleet.yaml").write_text(text)

    def model(self, *, is_good: bool) -> None:
        """A classifier of real digits; of a bad one, int8 leaves nothing."""
        import numpy as np
        import skops.io
        from sklearn.datasets import load_digits
        from sklearn.neural_network import MLPClassifier

        digits = load_digits()
        x, y = digits.data.astype(np.float32), digits.target.astype(np.int64)
        folder = self.checkout / "model"
        folder.mkdir(exist_ok=True)
        network = MLPClassifier((16,), max_iter=60, random_state=1, tol=0.01)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is good enough
            model = network.fit(x[:1000], y[:1000])
        if not is_good:
            model.coefs_[0][0, :] = 1e6  # of a pixel that is always dark
        skops.io.dump(model, folder / "digits.skops")
        np.save(folder / "calibration.npy", x[:200])
        np.savez(folder / "held_out.npz", x=x[1400:], y=y[1400:])
        (folder / "recipe.toml").write_text(RECIPE)

    def shell(self, script: str, environ: dict[str, str]) -> int:
        """Run lines as a runner does; the exit code."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("FLEET_")}
        path = f"{self.programs}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=self.checkout,
            env={**clean, **environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
        self.logs.append(done.stdout + done.stderr)
        return done.returncode


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    require("mosquitto", "mosquitto")
    folder = tmp_path_factory.mktemp("ci")
    (folder / "bin").mkdir()
    for name, module in (("fleet", "edgefleet_fleet"), ("edge-convert", "edgefleet_converter")):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        program.chmod(0o755)
    (folder / "checkout").mkdir()
    fleet = Fleet(folder / "fleet", free_port(), free_port())
    fleet.start()
    try:
        publisher = PrivateKey.generate_p256()
        fleet.trust(publisher)
        made = Site(fleet, folder / "checkout", folder / "bin")
        authority = (fleet.data / "keys" / "ca.pem").read_text()
        made.known = {
            "FLEET_URL": fleet.url,
            "FLEET_CA_PEM": authority,
            "PUBLISHER_KEY": fleet.key.read_text(),
            **{
                f"FLEET_{role.upper()}_TOKEN": fleet.client.post(
                    "/users", {"name": role, "role": role, "days": None}
                )["token"]
                for role in ("viewer", "publisher", "operator")
            },
        }
        yield made
    finally:
        fleet.stop()


@pytest.fixture(scope="module")
def board(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    claim = site.fleet.client.post("/claims", {"uses": 1})["claim"]
    identity = enrol(site.fleet.url, claim, "pi-1", tmp_path_factory.mktemp("pi"))
    with Device(identity, FLEET) as device:
        yield device


def substituted(text: str, known: dict[str, str]) -> str:
    """GitHub's expressions, replaced by what the forge knows; one that it does not is an error."""
    return re.sub(r"\$\{\{ (?:vars|secrets)\.(\w+) \}\}", lambda found: known[found[1]], text)


def github(site: Site, job: str) -> int:
    """Run the shell steps of a job; the first code that is not 0."""
    workflow = yaml.safe_load(GITHUB.read_text())
    temporary = site.checkout.with_name(f"runner-{len(site.logs)}")
    temporary.mkdir()
    given = {**workflow["env"], **workflow["jobs"][job].get("env", {})}
    environ = {name: substituted(value, site.known) for name, value in given.items()}
    for step in workflow["jobs"][job]["steps"]:
        if step.get("name") == "Install" or "run" not in step:
            continue
        assert "${{" not in step["run"], "an expression in a script is an injection"
        code = site.shell(step["run"], {**environ, "RUNNER_TEMP": str(temporary)})
        if code:
            return code
    assert not list(temporary.glob("publisher*")), "the key is gone when the job is"
    return 0


def gitlab(site: Site, job: str) -> int:
    """Run the script of a job, in one shell as GitLab does."""
    pipeline = yaml.safe_load(GITLAB.read_text())
    files = {"FLEET_CA": site.known["FLEET_CA_PEM"], "PUBLISHER_KEY": site.known["PUBLISHER_KEY"]}
    environ = {**pipeline["variables"], **site.known}
    for name, text in files.items():
        path = site.checkout.with_name(f"variable-{name}")
        path.write_text(text)
        environ[name] = str(path)
    return site.shell("\n".join(pipeline[job]["script"]), environ)


def answering(board: Device, version: int, *, refuse: bool = False) -> threading.Thread:
    """The device, which answers the order for a version while the job waits for it."""

    def answer() -> None:
        order = board.order_with(version, timeout=160)
        if refuse:
            board.refuse(order, Reason.GOLDEN_MISMATCH)
        else:
            board.commit(order)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def test_a_model_goes_all_the_way_and_a_worse_one_does_not(site: Site, board: Device) -> None:
    site.model(is_good=True)
    site.declare(1)
    assert github(site, "plan") == 0, site.logs[-1]
    assert "> rollout digits@1 to all" in site.logs[-1]
    assert site.fleet.client.get("/bundles")["bundles"] == [], "a plan pushes nothing"
    assert github(site, "publish") == 0, site.logs[-1]
    thread = answering(board, 1)
    code = github(site, "roll-out")
    thread.join()
    assert code == 0, site.logs[-1]
    assert site.fleet.client.get("/rollouts")["rollouts"][0]["state"] == "completed"
    assert github(site, "publish") == 0
    assert "digits-1 is on the shelf" in site.logs[-1]
    assert github(site, "roll-out") == 0
    assert "0 to do" in site.logs[-1]
    site.model(is_good=False)
    site.declare(2)
    assert github(site, "publish") == 1, site.logs[-1]
    assert "accuracy drops by" in site.logs[-1]
    assert len(site.fleet.client.get("/bundles")["bundles"]) == 1, "nothing of it was pushed"


def test_the_other_forge_does_the_same_and_a_rollout_that_stops_fails_the_job(
    site: Site, board: Device
) -> None:
    site.model(is_good=True)
    site.declare(3)
    assert gitlab(site, "plan") == 0, site.logs[-1]
    assert gitlab(site, "publish") == 0, site.logs[-1]
    thread = answering(board, 3, refuse=True)
    code = gitlab(site, "roll-out")
    thread.join()
    assert code == 1, site.logs[-1]
    assert site.fleet.client.get("/rollouts")["rollouts"][0]["state"] == "paused"


def installs(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from re.findall(r"pip install '(.*)'", value)
    for item in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from installs(item)


@pytest.mark.parametrize("file", [GITHUB, GITLAB], ids=lambda file: file.stem)
def test_what_is_installed_is_an_extra_that_exists(file: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = list(installs(yaml.safe_load(file.read_text())))
    assert len(found) == 3
    for words in found:
        named = re.fullmatch(r"edgefleet\[([a-z,]+)\]", words)
        assert named is not None
        assert set(named[1].split(",")) <= extras["optional-dependencies"].keys()
