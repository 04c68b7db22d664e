"""Pruning of a real network: what single zeros and cut channels cost, and what they bring.

A residual network of 2.8 million weights on ten thousand handwritten digits, trained by the
toolchain's PyTorch (once; `bench/_pruned_net.py`). Part one zeroes single weights over lambda, by
one lambda for all layers and by the same share of each, and makes each int8. Part two cuts channels
in three steps, with an epoch of training after each and without, as float and as int8. Part three
parts the held-out examples anew two thousand times, to see what a budget that was held is worth.

Latency: one inference, one thread, all files in turns in one process; ratios say more than
microseconds on a busy machine. `--toolchain DIR` is an environment with torch, onnxscript and
torch-pruning; `--write` puts the tables into docs/design/pruning.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from bench._prune_channels import Cut, cut_channels
from bench._prune_lambda import SHARES, Row, sweep_lambda
from bench._prune_page import tables, write
from bench._prune_proof import Kept, hold_budgets
from bench._prune_shop import Shop
from bench._pruned_data import ground

RATIOS = (0.25, 0.4, 0.5, 0.75)
BUDGETS = (0.005, 0.01, 0.02)


def main(argv: list[str]) -> int:
    """Print the tables, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench prune", description=__doc__)
    parser.add_argument("--toolchain", type=Path, default=os.environ.get("EDGE_CONVERT_TOOLCHAIN"))
    parser.add_argument("--only", choices=("lambda", "channels", "proof"))
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of zeros")
    parser.add_argument("--no-budget", action="store_true", help="no lambda is searched for")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(argv)
    if options.toolchain is None:
        print("bench prune: --toolchain DIR, with torch and torch-pruning", file=sys.stderr)
        return 2
    toolchain = Path(options.toolchain).absolute()
    folder = ground(toolchain)
    rows: list[Row] = []
    cuts: list[Cut] = []
    held: list[Kept] = []
    with tempfile.TemporaryDirectory(prefix="bench-prune-") as name:
        if options.only in (None, "lambda"):
            has_budget = not options.no_budget
            rows = sweep_lambda(
                folder, toolchain, Path(name), shares=options.shares, with_budget=has_budget
            )
        if options.only in (None, "channels"):
            cuts = cut_channels(folder, toolchain, Path(name), options.ratios)
        if options.only in (None, "proof"):
            shop = Shop(folder, Path(name) / "proof")
            held = hold_budgets(shop, shop.opened(folder / "whole.onnx"), BUDGETS)
    if options.write:
        write(rows, cuts, held)
    if options.json:
        told = {"lambda": [asdict(row) for row in rows], "channels": [asdict(cut) for cut in cuts]}
        told["proof"] = [asdict(one) for one in held]
        print(json.dumps(told, indent=2))
    else:
        print(*tables(rows, cuts, held).values(), sep="\n")
    return 0
