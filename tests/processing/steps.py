"""One step, run as a program runs it: settings decoded, file parsed, then tensors in and out."""

from __future__ import annotations

import numpy as np

from edgefleet_contract.graph import Node
from edgefleet_processing import Graph, prepare
from edgefleet_processing.table import STEPS

LEAST: dict[str, dict[str, object]] = {
    **{name: {"height": 4, "width": 3} for name in ("resize", "centre_crop", "letterbox")},
    "layout": {"to": "nchw"},
    "clip": {"low": "0", "high": "1"},
    "cast": {"dtype": "int8"},
    "quantize": {"scale": "1"},
    "dequantize": {"scale": "1"},
    "frames": {"length": 2, "hop": 1},
    "mel_spectrogram": {"rate": 8000, "fft": 64, "hop": 2, "mels": 4},
    "words": {"length": 3},
    "wordpiece": {"length": 3},
    "hash_words": {"features": 8},
    "top_k": {"k": 1},
    "labels": {"count": 4},
    "threshold": {"at": "1"},
    "convert_boxes": {"source": "xyxy", "to": "xywh"},
    "suppress": {"keep": 2},
    "split": {"sizes": [2, 3]},
    "reshape": {"shape": [-1]},
    "squeeze": {"axes": [1]},
    "expand": {"axis": 1},
}
"""The settings that each step needs, for tensors of a few numbers."""


def ready(
    op: str, takes: int = 1, gives: int | None = None, raw: bytes | None = None, **settings: object
) -> Graph:
    """A graph of one node with inputs `x0 …` and outputs `y0 …`: as many as it can give."""
    count = min(STEPS[op].gives.stop - 1, 8) if gives is None and op in STEPS else gives or 1
    node = Node(
        op,
        tuple(f"x{i}" for i in range(takes)),
        tuple(f"y{i}" for i in range(count)),
        "file" if raw is not None else "",
        settings,
    )
    return prepare((node,), {} if raw is None else {"file": raw})


def many(
    op: str,
    *taken: np.ndarray,
    gives: int | None = None,
    raw: bytes | None = None,
    **settings: object,
) -> list[np.ndarray]:
    """All that a step gives."""
    graph = ready(op, len(taken), gives, raw, **settings)
    wanted = graph.nodes[0].node.outputs
    given = graph.run({f"x{i}": x for i, x in enumerate(taken)}, wanted, {})
    return [given[name] for name in wanted]


def one(op: str, *taken: np.ndarray, raw: bytes | None = None, **settings: object) -> np.ndarray:
    """The first that a step gives; what it took is as it was."""
    before = [x.copy() for x in taken]
    found = many(op, *taken, gives=1, raw=raw, **settings)[0]
    assert all(
        np.array_equal(x, y, equal_nan=x.dtype.kind == "f")
        for x, y in zip(taken, before, strict=True)
    )
    return found


def text(*lines: str) -> np.ndarray:
    """A tensor of strings, [N]."""
    array = np.empty(len(lines), object)
    array[:] = lines
    return array
