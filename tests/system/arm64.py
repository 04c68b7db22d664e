"""`make arm64`: the device's code and runtimes on an emulated 64-bit ARM board.

A Debian root file system for arm64 (extracted, never configured), the wheels that a board would
download, and `on_board.py` under user-mode emulation: what computes is the real aarch64 code of
onnxruntime and LiteRT. Needs root, and Debian's qemu-user-static, binfmt-support and mmdebstrap.
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

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "arm64"
RELEASE, PYTHON = "bookworm", "311"
GLIBC = ("2014", "_2_17", "_2_27", "_2_28", "_2_34")
WHEELS = ("cryptography", "numpy", "onnxruntime", "ai-edge-litert", "paho-mqtt", "psutil")
MORE_WHEELS = ("requests", "tuf>=7,<8", "uvicorn")
LEAST_ACCURACY = 0.94


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
    for room in ("contract", "agent"):
        name = f"edgefleet_{room}"
        shutil.copytree(ROOT / room / name, board / "opt/site" / name)


def build_bundle(work: Path) -> None:
    """A real bundle, as the demo makes it."""
    print("training and converting", file=sys.stderr)
    programs = Path(sys.executable).parent
    run(sys.executable, "-m", "demo.train_digits", work, cwd=ROOT, stdout=subprocess.DEVNULL)
    run(programs / "edge-convert", "keys", "new", work / "key.pem", stdout=subprocess.DEVNULL)
    files = {"calibration": "calibration.npy", "held_out": "held_out.npz", "labels": "labels.txt"}
    sets = [word for key, name in files.items() for word in ("--set", f"data.{key}={work / name}")]
    run(
        *(programs / "edge-convert", "build", work / "digits.skops", "--recipe"),
        *(ROOT / "demo/digits.toml", "--out", work, "--model", "digits", "--version", "1"),
        *("--key", work / "key.pem", "--json", *sets),
        stdout=subprocess.DEVNULL,
    )


def main() -> int:
    if os.geteuid():
        sys.exit("arm64: error: this mounts and enters a root file system: run it as root")
    board = OUT / "board"
    shutil.rmtree(board, ignore_errors=True)
    OUT.mkdir(parents=True, exist_ok=True)
    build_board(board)
    work = board / "payload"
    work.mkdir()
    build_bundle(work)
    shutil.copy(Path(__file__).with_name("on_board.py"), work)
    environment = {"PYTHONPATH": "/opt/site", "HOME": "/tmp", "PATH": "/usr/bin", "LANG": "C.UTF-8"}
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
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        for path in mounted:
            run("umount", path)
    if done.returncode:
        return 1
    found = json.loads(done.stdout)
    print(json.dumps(found))
    good = all(row["accuracy"] >= LEAST_ACCURACY for row in found["runtimes"].values())
    return 0 if found["machine"] == "aarch64" and len(found["runtimes"]) == 2 and good else 1


if __name__ == "__main__":
    sys.exit(main())
