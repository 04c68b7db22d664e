"""The steps of the demo, from a trained model to predictions; each checks its own outcome."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import requests
from rich.table import Table

from demo.hostile import resign, wrong_golden
from demo.load import Load, Tally, accuracy
from demo.processes import DemoError, run
from demo.site import DEVICES, FLEET, Demo
from edgefleet_contract.bundle import parse_manifest
from edgefleet_contract.keys import PrivateKey

MODEL = "digits"
AWAY = "pi-lite-2"
CLIENTS = 2
IMAGES = 16
"""In one request under load; with few of them, two good models may answer the same."""
LEAST_ACCURACY = 0.94
LEAST_REQUESTS = 500
"""Fewer requests than this during the swap would prove little."""


def train(demo: Demo, seed: int) -> Path:
    """A digit classifier on real images; the folder with the model and the data."""
    folder = demo.out / f"train-{seed}"
    done = subprocess.run(
        [sys.executable, "-m", "demo.train_digits", str(folder), "--seed", str(seed)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DemoError(f"training failed:\n{done.stdout}{done.stderr}")
    return folder


def convert(demo: Demo, trained: Path, version: int) -> Path:
    """A signed bundle with an int8 ONNX and an int8 TFLite variant."""
    data = {"calibration": "calibration.npy", "held_out": "held_out.npz", "labels": "labels.txt"}
    overrides = [f"data.{name}={trained.absolute() / file}" for name, file in data.items()]
    run(
        "edge-convert",
        *("build", trained / "digits.skops", "--recipe", "demo/digits.toml"),
        *("--out", demo.out / "bundles", "--model", MODEL, "--version", str(version)),
        *("--key", demo.key, "--json"),
        *(part for override in overrides for part in ("--set", override)),
    )
    return demo.out / "bundles" / f"{MODEL}-{version}"


def show_reports(demo: Demo, bundles: list[Path]) -> None:
    """The table of what the conversion cost and gained."""
    table = Table(title="float against int8, held out", title_justify="left")
    for column in ("bundle", "variant", "size kB", "float", "int8", "agreement", "p50 µs"):
        table.add_column(column, justify="left" if column in ("bundle", "variant") else "right")
    for bundle in bundles:
        report = json.loads((bundle / "report.json").read_text())
        for name, figures in report_rows(report):
            table.add_row(bundle.name, name, *figures)
    demo.console.print(table)


def report_rows(report: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The rows of the conversion table."""
    for variant in report["variants"]:
        shares = (variant[key]["value"] for key in ("accuracy_float", "accuracy", "agreement"))
        yield (
            variant["name"],
            (
                f"{variant['size'] / 1000:.1f}",
                *(f"{share:.2%}" for share in shares),
                f"{variant['measured']['p50_us']:.0f}",
            ),
        )


def start_fleet(demo: Demo) -> None:
    """The control room: SQLite, shelf, broker, API, page."""
    demo.processes.start(
        "fleet",
        *("fleet", "serve", "--data", demo.data, "--name", FLEET),
        *("--listen", f"127.0.0.1:{demo.fleet_port}", "--mqtt-port", str(demo.mqtt_port)),
    )

    def is_up() -> bool:
        try:
            return requests.get(f"{demo.url}/healthz", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    demo.processes.wait_for("the control room", is_up)
    offline = demo.out / "offline"
    demo.fleet("keys", "init", "--out", offline, "--publisher", demo.key)


def start_devices(demo: Demo) -> None:
    """Three agents: each enrols with the claim, and comes online."""
    claim = demo.fleet("devices", "claim", "--uses", str(len(DEVICES)))[1]
    for device, engine in DEVICES.items():
        state = demo.out / "devices" / device
        state.mkdir(parents=True)
        (state / "agent.toml").write_text(
            f'[serving]\nlisten = ["unix:serve.sock", "{demo.address(device)}"]\n\n'
            f'[runtime]\nengines = ["{engine}"]\n\n'
            "[telemetry]\ninterval_s = 2.0\n\n[mqtt]\nwill_delay_s = 2\n"
        )
        run(
            "edge-agent",
            *("enrol", "--state", state, "--fleet", demo.url),
            *("--claim-file", "-", "--device", device),
            stdin=claim,
        )
        start_device(demo, device)
    demo.processes.wait_for("the devices", lambda: online(demo) == set(DEVICES))


def start_device(demo: Demo, device: str) -> None:
    """One agent, as systemd would start it."""
    demo.processes.start(device, "edge-agent", "run", "--state", demo.out / "devices" / device)


def online(demo: Demo) -> set[str]:
    """The devices that the control room sees."""
    return {device["id"] for device in demo.get("/devices")["devices"] if device["online"]}


def push(demo: Demo, bundle: Path, *flags: str, ok: tuple[int, ...] = (0,)) -> Any:
    """`fleet push-model --watch`; the rollout as it ended."""
    command = ("push-model", bundle, "--watch", "--json", "--key", demo.key)
    code, out, _ = demo.fleet(*command, *flags, ok=ok)
    lines = [line for line in out.splitlines() if line.strip()]
    try:
        value = json.loads(out)
    except ValueError:
        value = json.loads(lines[-1]) if lines else {}
    return {"exit": code, **value}


def score(demo: Demo, trained: Path, version: int) -> tuple[float, int]:
    """The lowest accuracy over the devices, by their REST APIs, and the images that were asked."""
    held_out = np.load(trained / "held_out.npz")
    found = {
        device: accuracy(demo.address(device), MODEL, held_out["x"], held_out["y"])
        for device in DEVICES
    }
    for device, share in found.items():
        if share < LEAST_ACCURACY:
            raise DemoError(f"{device} labels {share:.1%} rightly, {LEAST_ACCURACY:.0%} is asked")
    count = len(held_out["y"])
    said = ", ".join(f"{device} {share:.2%}" for device, share in found.items())
    demo.note(f"version {version} on {count} held-out images", said)
    return min(found.values()), count


def swap(demo: Demo, bundle: Path, trained: Path) -> None:
    """Version 2 under continuous requests from clients that keep their connections."""
    images = np.load(trained / "held_out.npz")["x"][:IMAGES]
    body = json.dumps({"instances": images.tolist()}).encode()
    loads = {d: Load(demo.address(d), MODEL, body, clients=CLIENTS) for d in DEVICES}
    with ExitStack() as stack:
        for load in loads.values():
            stack.enter_context(load)
        push(demo, bundle)
    tallies = {device: load.tally for device, load in loads.items()}
    requests_sent = sum(tally.requests for tally in tallies.values())
    failures = [failure for tally in tallies.values() for failure in tally.failures]
    reconnects = sum(tally.reconnects for tally in tallies.values())
    demo.report["swap"] = {"requests": requests_sent, "failures": len(failures)}
    if failures or reconnects:
        raise DemoError(f"{len(failures)} requests failed during the swap: {failures[:3]}")
    for device, tally in tallies.items():
        check_versions(device, tally)
    answers = sum((tally.versions for tally in tallies.values()), start=Tally().versions)
    slowest = max(tally.slowest_ms for tally in tallies.values())
    demo.note(
        "swap 1 → 2 under load",
        f"{requests_sent} requests on {CLIENTS * len(DEVICES)} kept connections, "
        f"{len(failures)} failures; {answers[1]} answers by version 1, {answers[2]} by 2; "
        f"slowest {slowest:.0f} ms",
    )


def check_versions(device: str, tally: Tally) -> None:
    """Both versions answered, nobody else did, and each always said the same.

    Raises:
        DemoError: they did not.
    """
    if set(tally.versions) != {1, 2} or tally.requests < LEAST_REQUESTS // len(DEVICES):
        raise DemoError(f"{device} answered {dict(tally.versions)}: not versions 1 and 2")
    bodies = [tally.answers[version] for version in (1, 2)]
    if any(len(found) != 1 for found in bodies) or bodies[0] == bodies[1]:
        raise DemoError(f"{device}: answers under a version's name differ: {tally.answers}")


def refuse(demo: Demo, good: Path, fresh: Path) -> None:
    """Three bundles that no device may run; each says why, and the old model keeps serving."""
    publisher, stranger = PrivateKey.load(demo.key), PrivateKey.generate_p256()
    hostile = demo.out / "hostile"
    hostile.mkdir()
    refused: dict[str, int] = {}

    with spoilt_on_the_shelf(demo, fresh):
        refused["tampered"] = count_refusals(demo, fresh, "digest_mismatch")

    unknown = resign(fresh, hostile / "unknown", stranger, 3)
    code = demo.fleet("push-model", unknown, "--key", demo.key, ok=(3,))[0]
    demo.note("unknown key, at the fleet's door", f"refused, exit code {code}")
    refused["unknown_key"] = count_refusals(demo, unknown, "unknown_key", "--no-check")

    golden = wrong_golden(good, hostile / "golden", publisher, 5)
    refused["golden"] = count_refusals(demo, golden, "golden_mismatch")

    demo.report["refused"] = refused
    for what, reason in (
        ("tampered", "one bit flipped on the shelf"),
        ("unknown_key", "signed by an unknown key"),
        ("golden", "signed, but golden outputs differ"),
    ):
        demo.note(f"refused: {reason}", f"by {refused[what]} of {len(DEVICES)} devices")
    still = {device: running_version(demo, device) for device in DEVICES}
    if set(still.values()) != {2} or set(refused.values()) != {len(DEVICES)}:
        raise DemoError(f"refused {refused}; the devices run {still}")


@contextmanager
def spoilt_on_the_shelf(demo: Demo, bundle: Path) -> Iterator[None]:
    """One bit of every model file is flipped on the shelf, as by one who has the fleet's disk.

    The bundle is uploaded first: it is whole, signed and accepted. Afterwards it is mended.
    """
    demo.fleet("bundles", "push", bundle)
    manifest = parse_manifest((bundle / "bundle.json").read_bytes())
    originals: dict[Path, bytes] = {}
    for variant in manifest.variants:
        digest = manifest.file(variant.model).sha256
        (blob,) = (path for path in (demo.data / "blobs").rglob(digest) if path.is_file())
        originals[blob] = blob.read_bytes()
        spoilt = bytearray(originals[blob])
        spoilt[len(spoilt) // 2] ^= 1
        blob.chmod(0o600)
        blob.write_bytes(spoilt)
    yield
    for blob, raw in originals.items():
        blob.write_bytes(raw)


def count_refusals(demo: Demo, bundle: Path, reason: str, *flags: str) -> int:
    """How many devices refused a bundle for this reason."""
    rollout = push(demo, bundle, *flags, ok=(1,))
    found = demo.get(f"/rollouts/{rollout['id']}")
    return sum(device["reason"] == reason for device in found["devices"])


def running_version(demo: Demo, device: str) -> int:
    """The version that a device's API says it serves."""
    answer = requests.get(f"http://{demo.address(device)}/v1/models/{MODEL}", timeout=10)
    return int(answer.json()["model_version_status"][0]["version"])


def converge(demo: Demo, good: Path) -> None:
    """A device that is off while a version is pushed has it soon after it comes back."""
    demo.processes.stop(AWAY)
    demo.processes.wait_for("the goodbye", lambda: AWAY not in online(demo))
    publisher = PrivateKey.load(demo.key)
    bundle = resign(good, demo.out / "later", publisher, 6)
    pushed = demo.fleet("push-model", bundle, "--json", "--key", demo.key)[1]
    rollout = json.loads(pushed)["id"]

    def done() -> Any:
        found = demo.get(f"/rollouts/{rollout}")
        return found if found["counts"]["good"] == len(DEVICES) - 1 else None

    demo.processes.wait_for("the two that are on", done)
    began = monotonic()
    start_device(demo, AWAY)
    demo.processes.wait_for(
        "the one that was off", lambda: demo.get(f"/rollouts/{rollout}")["state"] == "completed"
    )
    took = monotonic() - began
    versions = {device: running_version(demo, device) for device in DEVICES}
    if set(versions.values()) != {6}:
        raise DemoError(f"the devices run {versions}, all should run 6")
    demo.report["offline_converged"] = sum(versions[d] == 6 for d in [AWAY])
    demo.note("off during a push", f"{AWAY} runs version 6, {took:.1f} s after its start")


def listen(demo: Demo, asked: int) -> str:
    """A few seconds of telemetry, as anyone with the observer's certificate sees it.

    Every device was asked `asked` times since its last swap, and says so.
    """
    command = observer_command(demo)
    done = subprocess.run(
        [*command, "-W", "8", "-C", str(4 * len(DEVICES))],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if "/telemetry/" in line]
    streams = {line.split(" ", 1)[0].split("/", 4)[-1] for line in lines}
    if streams != {"telemetry/system", "telemetry/model"}:
        raise DemoError(f"mosquitto_sub heard {sorted(streams)}:\n{done.stdout}{done.stderr}")
    demo.note("telemetry by mosquitto_sub", f"{len(lines)} messages on {len(streams)} streams")

    def counted() -> bool:
        views = demo.get("/devices")["devices"]
        return all(v["telemetry"]["models"][MODEL]["requests"] >= asked for v in views)

    demo.processes.wait_for("the counts on the page", counted)
    return next(line for line in lines if f'"requests":{asked}' in line)


def observer_command(demo: Demo) -> list[str]:
    """The command line that shows the telemetry."""
    keys = demo.data / "keys"
    return [
        "mosquitto_sub",
        *("-h", "127.0.0.1", "-p", str(demo.mqtt_port), "-V", "mqttv5"),
        *("--cafile", str(keys / "ca.pem")),
        *("--cert", str(keys / "observer.crt"), "--key", str(keys / "observer.key")),
        *("-t", f"edgefleet/v1/{FLEET}/+/telemetry/#", "-v"),
    ]
