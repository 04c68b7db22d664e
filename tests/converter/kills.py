"""`make convert-kills`: kill -9 of the converter's commands at random moments; and counts.

    python -m tests.converter.kills [--toolchain DIR] [--kills N] [--seed N] [CASE …]

Real commands on the digits network: `build` with pruning and a search, `search` with its page,
`prune` with its page; with a toolchain, a build of a PyTorch factory and `prune-channels`. Each
runs once undisturbed, with a cache of its own. Then, with another cache, it is killed (the process
alone, as the kernel does when memory runs out) at moments drawn over the time that it takes. Where
it was faster, since it goes on from what is kept, it is held against the undisturbed run and begins
anew from an empty cache. At last it runs to its end. After each kill it is judged:

- half_written: something stands at an output path that the undisturbed run did not write so.
- left: a process of the command runs on, though it is gone.

and after each run to the end:

- unlike: its outputs are other bytes than those of the undisturbed run.
- remade: a result that was kept before it was made once more.
- wreckage: something is left in the folder for temporary files or beside the outputs.

Prints `{"kills": …, "half_written": …, …}`; exit code 1 unless all but the kills are 0.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.converter.conftest import ROOT
from tests.system import channels

_MARK: Final = "EDGE_KILLS_MARK"
_PATIENCE_S: Final = 60.0
_OLD_S: Final = 3600
_RECIPE: Final = """
targets = ["onnx-int8", "tflite-int8"]
[data]
calibration = "calibration.npy"
held_out = "held_out.npz"
[measure]
enabled = false
[search]
enabled = true
[prune]
max_accuracy_drop = 0.02
"""
_CHANNELS: Final = channels.RECIPE.format(ratio=0.5).replace(
    "steps = 3", "steps = 2\nmax_accuracy_drop = 0.05"
)
_RELEASE: Final = ("--model", "m", "--version", "1", "--key", "k.pem", "--created", "1700000000")


@dataclass(frozen=True)
class Case:
    """A command, run in a folder that is laid out for it; `OUT` in its words is its folder."""

    name: str
    words: tuple[str, ...]
    needs_toolchain: bool = False


CASES: Final = (
    Case("build", ("build", "digits.skops", "--recipe", "r.toml", "--out", "OUT", *_RELEASE)),
    Case("search", ("search", "digits.skops", "--recipe", "r.toml", "--json")),
    Case(
        "prune",
        (
            *("prune", "digits.skops", "--recipe", "r.toml", "--lambdas", "0,1e-5,1e-4,3e-4"),
            *("--json", "--report", "OUT/sweep.html"),
        ),
    ),
    Case(
        "factory",
        (
            *("build", "digits_cnn:trained", "--recipe", "c.toml", "--set", "prune={}"),
            *("--out", "OUT", *_RELEASE),
        ),
        needs_toolchain=True,
    ),
    Case(
        "channels",
        (
            *("prune-channels", "digits_cnn:trained", "--recipe", "c.toml", "--json"),
            *("--set", "measure.enabled=false", "--out", "OUT/cut.onnx"),
        ),
        needs_toolchain=True,
    ),
)


class Desk:
    """A place to run commands in: outputs, cache and temporary files of one case."""

    def __init__(self, data: Path, home: Path, toolchain: Path | None) -> None:
        self.data, self.out = data, home / "out"
        self.cache, self.tmp = home / "cache", home / "tmp"
        for folder in (self.out, self.cache, self.tmp):
            folder.mkdir(parents=True)
        self.cache.chmod(0o700)
        self.mark = uuid.uuid4().hex
        self._toolchain = toolchain

    def start(self, case: Case) -> subprocess.Popen[bytes]:
        """The command, running; what it says goes to files beside the outputs."""
        words = [word.replace("OUT", str(self.out)) for word in case.words]
        if case.needs_toolchain:
            words += ["--toolchain", str(self._toolchain)]
        home = self.tmp.parent
        with (home / "said").open("wb") as said, (home / "err").open("wb") as err:
            return subprocess.Popen(
                [sys.executable, "-m", "edgefleet_converter", *words],
                cwd=self.data,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=err,
            )

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            _MARK: self.mark,
            "EDGE_CONVERT_CACHE": str(self.cache),
            "TMPDIR": str(self.tmp),
        }

    def finish(self, case: Case) -> float:
        """Run it to its end; how many seconds that took."""
        begun = time.monotonic()
        code = self.start(case).wait()
        if code:
            raise RuntimeError(f"{case.name}: {(self.tmp.parent / 'err').read_text()}")
        return time.monotonic() - begun

    def outputs(self) -> dict[str, bytes]:
        """All files at the output paths, and what was printed; signatures differ by chance."""
        found = {
            str(path.relative_to(self.out)): path.read_bytes()
            for path in self.out.rglob("*")
            if path.is_file() and not _is_hidden(path.relative_to(self.out))
        }
        found.pop("m-1/model.sig", None)
        said = (self.tmp.parent / "said").read_bytes().replace(str(self.out).encode(), b"OUT")
        return {**found, "said": said}

    def entries(self) -> dict[str, int]:
        """What is kept: an entry that is made once more is another file."""
        return {path.name: path.stat().st_ino for path in self.cache.glob("*.entry")}

    def processes(self) -> set[int]:
        """Those of the command that run, and those that they started."""
        found = set()
        mark = f"{_MARK}={self.mark}".encode()
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                is_dead = path.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "Z"
                if mark in path.joinpath("environ").read_bytes().split(b"\0") and not is_dead:
                    found.add(int(path.name))
        return found

    def wreckage(self) -> list[Path]:
        """Temporary files, and what lies hidden beside the outputs."""
        return [*self.tmp.iterdir(), *(one for one in self.out.iterdir() if one.name[0] == ".")]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def storm(
    case: Case, data: Path, home: Path, toolchain: Path | None, kills: int, seed: str
) -> dict[str, int]:
    """Kill a command so many times, let it end, and count what is wrong."""
    chance = random.Random(f"{seed} {case.name}")
    calm = Desk(data, home / "calm", toolchain)
    takes = calm.finish(case)
    right = calm.outputs()
    wrong: Counter[str] = Counter()
    desk = Desk(data, home / "storm", toolchain)
    while wrong["kills"] < kills:
        kept = desk.entries()
        process = desk.start(case)
        with suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.0, takes))
        if process.poll() is not None:
            wrong.update(_judge(desk, right, kept))
            shutil.rmtree(home / "storm")
            desk = Desk(data, home / "storm", toolchain)
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        wrong["kills"] += 1
        wrong["left"] += _outlive(desk)
        found = {name: raw for name, raw in desk.outputs().items() if name != "said"}
        whole = {name: raw for name, raw in right.items() if name != "said"}
        wrong["half_written"] += bool(found) and found != whole
        if found:  # it was killed with its work done
            shutil.rmtree(desk.out)
            desk.out.mkdir()
        for path in desk.wreckage():
            os.utime(path, (time.time() - _OLD_S,) * 2)  # as if it had died long ago
    kept = desk.entries()
    again = desk.finish(case)
    wrong.update(_judge(desk, right, kept))
    print(
        f"{case.name}: {takes:.0f} s undisturbed, {again:.0f} s at last with {len(kept)} results "
        f"kept; {dict(wrong)}",
        file=sys.stderr,
        flush=True,
    )
    return dict(wrong)


def _judge(desk: Desk, right: dict[str, bytes], kept: dict[str, int]) -> dict[str, int]:
    """What is wrong with a command that ran to its end."""
    found, entries = desk.outputs(), desk.entries()
    unlike = sorted(name for name in {*found, *right} if found.get(name) != right.get(name))
    left = desk.wreckage()
    if unlike or left:
        print(f"unlike: {unlike}; left: {left}", file=sys.stderr, flush=True)
    return {
        "ended": 1,
        "kept": len(kept),
        "unlike": len(unlike),
        "remade": sum(entries.get(name) != node for name, node in kept.items()),
        "wreckage": len(left),
    }


def _outlive(desk: Desk) -> int:
    """How many processes of a command that was killed do not end."""
    until = time.monotonic() + _PATIENCE_S
    while (found := desk.processes()) and time.monotonic() < until:
        time.sleep(0.05)  # processes of nobody here: they can only be looked for
    for one in found:
        with suppress(OSError):
            os.kill(one, signal.SIGKILL)
    return len(found)


def _lay_out(data: Path, toolchain: Path | None) -> None:
    for name, command in (("digits", [sys.executable, ROOT / "demo" / "train_digits.py", data]),):
        print(f"training {name}", file=sys.stderr, flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (data / "r.toml").write_text(_RECIPE)
    words = ["keys", "new", "k.pem"]
    command = [sys.executable, "-m", "edgefleet_converter", *words]
    subprocess.run(command, cwd=data, check=True, stdout=subprocess.DEVNULL)
    if toolchain is not None:
        images = data / "images"
        images.mkdir()
        channels._write_data(images)
        shutil.copy(channels.CODE, data)
        shutil.copy(images / "digits.npz", data)
        python = toolchain / "bin" / "python"
        subprocess.run([python, "digits_cnn.py"], cwd=data, check=True)
        recipe = _CHANNELS.replace('"calibration.npy"', '"images/calibration.npy"')
        recipe = recipe.replace('"held_out.npz"', '"images/held_out.npz"')
        (data / "c.toml").write_text(f"{recipe}[measure]\nenabled = false\n")


def main() -> int:
    """Print the counts; 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.converter.kills", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE")
    parser.add_argument("--toolchain", type=Path, default=os.environ.get("EDGE_CONVERT_TOOLCHAIN"))
    parser.add_argument("--kills", type=int, default=8, help="of each case")
    parser.add_argument("--seed", default="1")
    options = parser.parse_args()
    toolchain = None if options.toolchain is None else Path(options.toolchain).absolute()
    cases = [
        case
        for case in CASES
        if (not options.cases or case.name in options.cases)
        and (toolchain is not None or not case.needs_toolchain)
    ]
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        data = Path(name) / "data"
        data.mkdir()
        _lay_out(data, toolchain)
        for case in cases:
            home = Path(name) / case.name
            counts.update(storm(case, data, home, toolchain, options.kills, options.seed))
    print(json.dumps(dict(counts)))
    wrong = ("half_written", "left", "unlike", "remade", "wreckage")
    return int(any(counts[one] for one in wrong) or not counts["kills"])


if __name__ == "__main__":
    sys.exit(main())
