"""What it costs a device to verify: one order, one bundle; against the `model_signing` library.

Each figure is taken in a process of its own: CPU ms of one verification (the least of some), and
peak resident memory over that of a bare interpreter, libraries and the work included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNS = 5
SIZE = 3_500_000


def _order(folder: Path) -> Callable[[], object]:
    from edgefleet_contract.keys import KeyRing, PublicKey
    from edgefleet_contract.messages import open_order

    raw = (folder / "order").read_bytes()
    ring = KeyRing([PublicKey.from_pem((folder / "director.pem").read_text())])
    return lambda: open_order(raw, ring)


def _bundle(folder: Path) -> Callable[[], object]:
    from edgefleet_contract.directory import verify_directory
    from edgefleet_contract.keys import KeyRing, PublicKey

    ring = KeyRing([PublicKey.from_pem((folder / "publisher.pem").read_text())])
    return lambda: verify_directory(folder / "digits-1", ring)


def _peer(folder: Path) -> Callable[[], object]:
    from model_signing import hashing, verifying

    bundle = folder / "digits-1"
    signature = bundle / "model.sig"

    def go() -> None:
        config = verifying.Config().use_elliptic_key_verifier(public_key=folder / "publisher.pem")
        config = config.set_hashing_config(
            hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)
        )
        config.verify(bundle, signature)

    return go


def _nothing(_: Path) -> Callable[[], object]:
    return lambda: None


WORK = {"order": _order, "bundle": _bundle, "peer_bundle": _peer, "nothing": _nothing}


def child(what: str, folder: Path) -> None:
    """Do it some times, and print CPU ms of the quickest and peak KiB."""
    work = WORK[what](folder)
    took = []
    for _ in range(RUNS):
        began = time.process_time()
        work()
        took.append((time.process_time() - began) * 1e3)
    lines = Path("/proc/self/status").read_text().splitlines()  # ru_maxrss would count the parent's
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    print(json.dumps({"ms": min(took), "peak_kib": peak}))


def measure() -> dict[str, float]:
    """All figures, of fresh documents."""
    from edgefleet_contract import messages
    from edgefleet_contract.keys import PrivateKey
    from tests.contract.makers import order_of, target_of, write_bundle

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        director, publisher = PrivateKey.generate_ed25519(), PrivateKey.generate_p256()
        bundle = write_bundle(folder, publisher, content=bytes(range(250)) * (SIZE // 250))
        (folder / "order").write_bytes(messages.seal_order(order_of(target_of(bundle)), director))
        (folder / "director.pem").write_text(director.public.pem)
        (folder / "publisher.pem").write_text(publisher.public.pem)
        found = {what: _run(what, folder) for what in WORK}
    bare = found["nothing"]["peak_kib"]
    rss = {what: (found[what]["peak_kib"] - bare) / 1024 for what in WORK}
    return {
        "order_ms": round(found["order"]["ms"], 3),
        "bundle_ms": round(found["bundle"]["ms"], 2),
        "peer_bundle_ms": round(found["peer_bundle"]["ms"], 2),
        "bundle_over_peer": round(found["bundle"]["ms"] / found["peer_bundle"]["ms"], 3),
        "order_rss_mib": round(rss["order"], 1),
        "rss_mib": round(rss["bundle"], 1),
        "peer_rss_mib": round(rss["peer_bundle"], 1),
        "rss_over_peer": round(rss["bundle"] / rss["peer_bundle"], 3),
        "bundle_bytes": SIZE,
    }


def _run(what: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.verify", "--child", what, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench verify", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        child(options.child[0], Path(options.child[1]))
        return 0
    figures = measure()
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>16} {value:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
