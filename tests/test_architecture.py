"""Who may import whom, and what importing a room loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORES = {
    "agent/edgefleet_agent": (
        *("install", "install_events", "install_commands", "transitions", "recovery", "device"),
        *("policy", "windows", "commanding"),
        *("telemetry", "shadowing", "canarying", "runtime/choice", "runtime/chain"),
        *("runtime/drift_watch", "serving/drift", "transfer/flight", "transfer/window"),
    ),
    "fleet/edgefleet_fleet": (
        *("rollout", "rollout_states", "rollout_plan", "rollout_events", "rounds", "roster"),
        *("pace", "gates", "model_gates", "sequential", "observations", "endings", "rehearsal"),
        *("cohort", "filters", "desired", "plan_words", "webhooks", "apply_plan", "doctor"),
        *("moments", "traits", "filter_parser", "filter_values"),
        *("moments", "retries", "happenings", "apply_how", "rollout_verbs"),
        *("device_moves", "glance"),
    ),
    "converter/edgefleet_converter": (
        *("search/wishes", "search/candidate", "search/mixing", "search/ranking"),
        *("boards/places", "boards/figures"),
    ),
    "contract/edgefleet_contract": (
        *("trust", "bundle", "messages", "commands", "boards", "topics", "canonical", "codec"),
        *("cards", "sealed", "sealed_index", "reasons", "blocks"),
        *("orders", "phases", "reported", "capabilities", "telemetry", "results", "enrolment"),
        *("lanes", "delta", "delta_reader", "graph", "drift", "drift_reference", "measuring"),
    ),
}
STEPS = ROOT / "contract/edgefleet_processing"
WORLD = {
    *("asyncio", "logging", "os", "random", "socket", "subprocess", "threading", "time"),
    *("requests", "paho", "psutil", "sqlalchemy", "gmqtt", "fastapi", "uvicorn", "numpy"),
}


def imports(path: Path) -> set[str]:
    """The first parts of the names that a module imports when it is imported."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize(
    "path",
    [ROOT / room / f"{name}.py" for room, names in CORES.items() for name in names],
    ids=lambda path: path.stem,
)
def test_a_core_touches_no_clock_disk_or_network(path: Path) -> None:
    assert imports(path) & WORLD == set()


@pytest.mark.parametrize("path", sorted(STEPS.glob("*.py")), ids=lambda path: path.stem)
def test_a_step_touches_no_clock_disk_or_network(path: Path) -> None:
    assert imports(path) & (WORLD - {"numpy"}) == set()


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("edgefleet_contract.model_signature", {"numpy", "requests", "paho", "psutil"}),
        (
            "edgefleet_agent.serving.front",
            {"edgefleet_processing", "numpy", "onnxruntime", "ai_edge_litert", "requests"},
        ),
        (
            "edgefleet_agent.daemon",
            {"edgefleet_processing", "onnxruntime", "ai_edge_litert", "tflite_runtime", "onnx"},
        ),
        ("edgefleet_agent.cli", {"numpy", "requests", "onnxruntime", "asyncio"}),
        (
            "edgefleet_converter.cli",
            {"edgefleet_processing", "onnx", "onnxruntime", "sklearn", "numpy"},
        ),
        ("edgefleet_fleet.cli", {"sqlalchemy", "fastapi", "gmqtt"}),
    ],
)
def test_importing_loads_nothing_heavy(module: str, never: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded & never == set()


def test_the_project_speaks_of_itself_alone() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not a git checkout")
    here = "/".join(["", "work", ""])
    for name in tracked.stdout.split():
        raw = (ROOT / name).read_bytes()
        assert here.encode() not in raw, f"{name} names a path of one machine"
