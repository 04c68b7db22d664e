"""What people install: the wheel holds what it must, and a device needs nothing but its extra."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("contract", "converter", "fleet", "agent")
DOORS = (
    *("installer", "transfer_http", "tuf_client", "policy", "journal", "identity", "unsealing"),
    *("runtime_program", "runtime_chain", "serving_app", "serving_oip_v2", "client", "stateful"),
    *("sources_folder", "commander", "runtime_drift", "measure_door"),
)
EXTRAS = {"cv2", "google", "grpc", "tflite_runtime"}  # of other extras, or of 32-bit boards
EVERY_MODULE = """
import importlib, json, pkgutil
lacking = {}
for name in ("edgefleet_contract", "edgefleet_processing", "edgefleet_agent"):
    package = importlib.import_module(name)
    for found in pkgutil.walk_packages(package.__path__, f"{name}."):
        if found.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            lacking[error.name.partition(".")[0]] = found.name
print(json.dumps(lacking))
"""
pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


def run(*command: str | Path, cwd: Path | None = None) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV"))}
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, cwd=cwd, env=environment
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, ROOT)
    (found,) = out.glob("*.whl")
    return found


def test_the_wheel_holds_the_packages_of_the_four_rooms_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        *(f"edgefleet_{room}" for room in ROOMS),
        "edgefleet_processing",
    }
    for room in ROOMS:
        tracked = {
            path.relative_to(ROOT / room).as_posix()
            for path in (ROOT / room).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert tracked <= set(names)


@pytest.fixture(scope="module")
def device(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel's `[agent]` and a test runner."""
    venv = tmp_path_factory.mktemp("device") / "venv"
    run(sys.executable, "-m", "venv", venv)
    constraints = ("--constraint", ROOT / "constraints.txt")
    pip = (venv / "bin/python", "-m", "pip", "install", "--quiet", "--no-warn-script-location")
    run(*pip, *constraints, f"{wheel}[agent]", "pytest", "pytest-timeout", "hypothesis")
    return venv


def test_a_device_imports_everything_that_it_has(device: Path) -> None:
    """Each module in a board's environment; what belongs to an extra names what it lacks."""
    installed = run(device / "bin/python", "-m", "pip", "list", "--format=freeze")
    assert "onnx==" not in installed
    assert "sqlalchemy" not in installed.lower()
    lacking = json.loads(run(device / "bin/python", "-c", EVERY_MODULE))
    assert set(lacking) <= EXTRAS
    assert all(module.startswith("edgefleet_agent.") for module in lacking.values())


def test_a_device_passes_its_tests_with_nothing_but_its_extra(device: Path) -> None:
    """A file of tests for each door of the agent; `make device-tests` runs all of them so."""
    said = run(
        *(device / "bin/python", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"),
        *(f"tests/agent/test_{name}.py" for name in DOORS),
        *("-k", "not under_load"),
        cwd=ROOT,
    )
    assert " passed" in said


def test_a_missing_extra_explains_itself(device: Path) -> None:
    for program, extra in (("fleet", "fleet"), ("edge-convert", "converter")):
        done = subprocess.run(
            [device / "bin" / program, "--help"], capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert "is not installed" in done.stderr
        assert f"edgefleet[{extra}]" in done.stderr
        assert "Traceback" not in done.stderr
