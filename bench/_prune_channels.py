"""Part two of `bench prune`: channels are cut out, trained again, and the model becomes int8."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench._prune_shop import Figures, Shop
from edgefleet_converter.isolation import run_task
from edgefleet_converter.recipe_prune import Structured
from edgefleet_converter.toolchain import python_of

STEPS = Structured().steps
ROUND_TO = Structured().round_to
UNROUNDED = 0.4
"""The ratio that is cut without rounding, too."""
FACTORY = "pruned_net:trained"
FINETUNE = "pruned_net:finetune"


@dataclass
class Cut:
    """One ratio, trained again or not; 0 is the whole network. `round_to` 1 rounds no width."""

    ratio: float
    is_trained: bool
    round_to: int
    parameters: int
    multiply_adds: int
    float_: Figures
    int8: Figures


def cut_channels(
    folder: Path, toolchain: Path, scratch: Path, ratios: Sequence[float]
) -> list[Cut]:
    """The whole network, then each ratio before and after training; timed all together."""
    shop = Shop(folder, scratch / "channels")
    cuts: list[Cut] = []
    files: list[Path] = []

    def add(source: Path, name: str, size: dict[str, int], *told: Any) -> None:
        path = scratch / f"{name}.onnx"
        shutil.copy(shop.opened(source), path)
        made = shop.int8(path, name)
        files.extend((path, made))
        both = shop.figures(path), shop.figures(made)
        cuts.append(Cut(*told, size["parameters"], size["multiply_adds"], *both))
        print(cuts[-1], file=sys.stderr, flush=True)

    for ratio in ratios:
        for finetune, round_to in (("", 1), ("", ROUND_TO), (FINETUNE, ROUND_TO)):
            if round_to == 1 and ratio != UNROUNDED:
                continue
            name = f"cut-{ratio}-{round_to}{'-trained' if finetune else ''}"
            made = scratch / "made" / name
            before, after = prune(
                folder, toolchain, made, ratio=ratio, finetune=finetune, round_to=round_to
            )
            if not cuts:
                add(made / "whole.onnx", "whole-float", before, 0.0, False, 1)
            add(made / "cut.onnx", name, after, ratio, bool(finetune), round_to)
    times = shop.times(files)
    for index, cut in enumerate(cuts):
        cut.float_ = replace(cut.float_, p50_us=times[2 * index])
        cut.int8 = replace(cut.int8, p50_us=times[2 * index + 1])
    return cuts


def prune(
    folder: Path,
    toolchain: Path,
    made: Path,
    *,
    ratio: float,
    finetune: str,
    round_to: int = ROUND_TO,
) -> tuple[dict[str, int], dict[str, int]]:
    """`whole.onnx` and `cut.onnx` in `made`, by the task behind `prune-channels`.

    The command measures its own four files; here all files of all ratios are measured together.
    """
    made.mkdir(parents=True)
    print(f"cutting {ratio} of the channels {finetune}", file=sys.stderr, flush=True)
    bench = Shop(folder, made / "scratch").bench
    says = run_task(
        "torch_prune",
        what="cutting channels",
        limits=bench.recipe.worker,
        inputs={"inputs.npz": bench.scratch / "timed.npz"},
        outputs={"whole.onnx": made / "whole.onnx", "cut.onnx": made / "cut.onnx"},
        params={
            "factory": FACTORY,
            "search": str(folder),
            "finetune": finetune,
            "ratio": ratio,
            "steps": STEPS,
            "round_to": round_to,
        },
        python=python_of(toolchain),
    )
    after = says["after"]
    assert isinstance(after, list)
    return _counts(says["before"]), _counts(after[-1])


def _counts(told: object) -> dict[str, int]:
    assert isinstance(told, dict)
    return {str(name): int(value) for name, value in told.items()}
