"""`make arm64`: the device's code and runtimes on an emulated 64-bit ARM board.

A Debian root file system for arm64 (extracted, never configured), the wheels that a board would
download, and `on_board.py` under user-mode emulation: what computes is the real aarch64 code of
onnxruntime and LiteRT. Then a bundle is built whose limits that board measured. Needs root, and
Debian's qemu-user-static, binfmt-support and mmdebstrap.
Ends with one JSON line; exit code 1 where a runtime does not reproduce the bundle.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "arm64"
RELEASE, PYTHON = "bookworm", "311"
GLIBC = ("2014", "_2_17", "_2_27", "_2_28", "_2_34")
WHEELS = ("cryptography", "numpy", "onnxruntime", "ai-edge-litert", "paho-mqtt", "psutil")
MORE_WHEELS = ("requests", "tuf>=7,<8", "uvicorn")
LEAST_ACCURACY = 0.94
ENVIRONMENT = {"PYTHONPATH": "/opt/site", "HOME": "/tmp", "PATH": "/usr/bin", "LANG": "C.UTF-8"}


def run(*command: str | Path, **more: object) -> None:
    subprocess.run([str(word) for word in command], check=True, **more)  # type: ignore[call-overload]


def mirror() -> str:
    """The mirror that this machine uses itself."""
    files = [path for end in ("list", "sources") for path in Path("/etc/apt").rglob(f"*.{end}")]
    sources = "\n".join(path.read_text() for path in files)
    line = r"^(?:URIs:\s*|deb (?:\[[^]]*\] )?)(\S+/debian/?)(?:\s|$)"
    found = re.search(line, sources, re.MULTILINE)
    if found is None:
        sys.exit("arm64: error: no Debian mirror in /etc/apt")
    return found[1]


def build_board(board: Path) -> None:
    """The root file system, with the wheels and our code in `/opt/site`."""
    tar = OUT / "root.tar"
    packages = "python3,libstdc++6"
    if not tar.exists():
        print("extracting a root file system for arm64", file=sys.stderr)
        options = ("--variant=extract", "--architectures=arm64", f"--include={packages}")
        run("mmdebstrap", "--quiet", *options, RELEASE, tar, mirror())
    board.mkdir(parents=True)
    run("tar", "-C", board, "-xpf", tar)
    for name in ("bin", "sbin", "lib"):
        if not (board / name).exists():
            (board / name).symlink_to(f"usr/{name}")
    for name in ("proc", "dev", "tmp"):
        (board / name).mkdir(exist_ok=True)
    print("downloading the wheels of a board", file=sys.stderr)
    platforms = [word for tag in GLIBC for word in ("--platform", f"manylinux{tag}_aarch64")]
    abis = [word for abi in (f"cp{PYTHON}", "abi3", "none") for word in ("--abi", abi)]
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:", *platforms),
        *("--python-version", PYTHON, "--implementation", "cp", *abis),
        *("--constraint", ROOT / "constraints.txt", "--target", board / "opt/site"),
        *(*WHEELS, *MORE_WHEELS),
    )
    for room, name in (("contract", "contract"), ("contract", "processing"), ("agent", "agent")):
        package = f"edgefleet_{name}"
        shutil.copytree(ROOT / room / package, board / "opt/site" / package)


def train(work: Path) -> None:
    """The demo's model, and a key."""
    print("training and converting", file=sys.stderr)
    run(sys.executable, "-m", "demo.train_digits", work, cwd=ROOT, stdout=subprocess.DEVNULL)
    command = (sys.executable, "-m", "edgefleet_converter", "keys", "new", work / "key.pem")
    run(*command, stdout=subprocess.DEVNULL)


def build_bundle(work: Path, version: int, *more: str, **environ: str) -> None:
    """A real bundle, as the demo makes it."""
    files = {"calibration": "calibration.npy", "held_out": "held_out.npz", "labels": "labels.txt"}
    sets = [word for key, name in files.items() for word in ("--set", f"data.{key}={work / name}")]
    run(
        *(sys.executable, "-m", "edgefleet_converter", "build", work / "digits.skops"),
        *("--recipe", ROOT / "demo/digits.toml", "--out", work, "--model", "digits"),
        *("--version", str(version), "--key", work / "key.pem", "--json"),
        *sets,
        *more,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **environ},
    )


def measure(board: Path, work: Path) -> dict[str, Any]:
    """A bundle whose limits are those of the emulated board, which is gone to instead of by ssh."""
    print("measuring on the emulated board", file=sys.stderr)
    go = OUT / "go"
    chroot = shutil.which("chroot") or "/usr/sbin/chroot"
    variables = " ".join(f"{name}={value}" for name, value in ENVIRONMENT.items())
    there = "/usr/bin/python3 -m edgefleet_agent measure -"
    go.write_text(f"#!/bin/sh\nexec /usr/bin/env -i {variables} {chroot} {board} {there}\n")
    go.chmod(0o755)
    build_bundle(work, 2, "--device", "ssh://emulated", EDGE_CONVERT_SSH=str(go))
    told = json.loads((work / "digits-2" / "report.json").read_text())
    manifest = json.loads((work / "digits-2" / "bundle.json").read_text())
    (there_was,) = told["boards"]
    return {
        "name": there_was["name"],
        "is_emulated": there_was["board"]["is_emulated"],
        "limits": {one["name"]: one["limits"] for one in manifest["variants"]},
        "figures": {one["name"]: one["boards"][0] for one in told["variants"]},
    }


def main() -> int:
    if os.geteuid():
        sys.exit("arm64: error: this mounts and enters a root file system: run it as root")
    board = OUT / "board"
    shutil.rmtree(board, ignore_errors=True)
    OUT.mkdir(parents=True, exist_ok=True)
    build_board(board)
    work = board / "payload"
    work.mkdir()
    train(work)
    build_bundle(work, 1)
    shutil.copy(Path(__file__).with_name("on_board.py"), work)
    mounted = []
    try:
        for name in ("proc", "dev"):
            run("mount", "--bind", f"/{name}", board / name)
            mounted.append(board / name)
        print("on the emulated board", file=sys.stderr)
        script = (
            "/usr/bin/python3",
            "/payload/on_board.py",
            "/payload/digits-1",
            "/payload/held_out.npz",
        )
        done = subprocess.run(
            [shutil.which("chroot") or "/usr/sbin/chroot", str(board), *script],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        measured = measure(board, work)
    finally:
        for path in mounted:
            run("umount", path)
    if done.returncode:
        return 1
    found = json.loads(done.stdout)
    print(json.dumps(found | {"measured": measured}))
    good = all(row["accuracy"] >= LEAST_ACCURACY for row in found["runtimes"].values())
    is_arm = all(list(one) == ["arm64"] for one in measured["limits"].values())
    good = good and is_arm and measured["is_emulated"] is True
    return 0 if found["machine"] == "aarch64" and len(found["runtimes"]) == 2 and good else 1


if __name__ == "__main__":
    sys.exit(main())
