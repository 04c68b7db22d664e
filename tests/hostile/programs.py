"""Hostile programs: steps that would eat the board, loop, reach outside, or are not what they say.

Parsed as a device parses them, made ready as its child does, and run once in this process: what is
refused is refused by a bound of ours, before the trial's limits are met.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from edgefleet_contract import bundle as b
from edgefleet_contract import canonical, codec
from edgefleet_contract.errors import PeerError
from edgefleet_contract.graph import Node, Program
from edgefleet_contract.reasons import Reason
from edgefleet_processing import StepFailed, prepare
from edgefleet_processing.step import File
from edgefleet_processing.table import STEPS
from tests.hostile.attempts import Attempt, hostile
from tests.hostile.ground import Ground
from tests.processing.steps import LEAST

X = b.TensorSpec("x", "uint8", (-1, -1, -1, 3))
PASSED = "read, made ready and run"
IMAGE = np.zeros((1, 8, 8, 3), np.uint8)
FILES = {"labels.txt": b"a\nb\n", "v/words.txt": b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n"}
WORDS = (0, -1, 1, 2**31, 2**53 - 1, True, "", "1e99", "1/0", "nan", "x" * 5000, "../../x", [], {})


def manifest(nodes: tuple[Node, ...], outputs: tuple[str, ...] = ("y",)) -> bytes:
    """The bytes of a manifest, without the checks of ours that a publisher would meet."""
    files = [("v/golden.npz", "golden"), ("v/m.onnx", "model"), ("v/words.txt", "vocabulary")]
    variant = {
        "name": "v",
        "format": "onnx",
        "precision": "fp32",
        "model": "v/m.onnx",
        "golden": "v/golden.npz",
        "max_abs_err_e6": 0,
        "inputs": [codec.encode(X)],
        "outputs": [{"name": name, "dtype": "uint8", "shape": [-1]} for name in outputs],
        "runtimes": {"onnxruntime": "0"},
        "program": {"nodes": [codec.encode(node) for node in nodes]},
    }
    one = {"size": 1, "sha256": "0" * 64, "chunk_list_sha256": "0" * 64}
    return canonical.render(
        {
            "schema": b.SCHEMA,
            "model": "m",
            "version": 1,
            "created": 1,
            "agent_min": "0.1.0",
            "variants": [variant],
            "files": [
                {"path": path, "role": role, **one}
                for path, role in [("labels.txt", "labels"), *files]
            ],
        }
    )


def run(*nodes: Node, outputs: tuple[str, ...] = ("y",)) -> object:
    """What a device does with a program; raises what it refuses."""
    (variant,) = b.parse_manifest(manifest(nodes, outputs)).variants
    assert isinstance(variant.program, Program)
    graph = prepare(variant.program.nodes, FILES)
    try:
        graph.run({"x": IMAGE}, outputs, {"v/m.onnx": lambda taken: (taken[0],)})
    except StepFailed as failure:
        raise PeerError(str(failure), reason=Reason.GOLDEN_MISMATCH) from failure
    return PASSED


MODEL = Node("model", ("x",), ("y",), "v/m.onnx")


@hostile("hungry_programs", Reason.GOLDEN_MISMATCH, Reason.MALFORMED, sample=20)
def hungry_programs(ground: Ground) -> Iterator[Attempt]:
    """Steps that double, pad and unfold what they get, and graphs that hold it all."""
    side = {"height": 8192, "width": 8192}
    pad = dict.fromkeys(("top", "bottom", "left", "right"), 8192)
    twice = [Node("concat", (f"t{i}",) * 64, (f"t{i + 1}",)) for i in range(12)]
    for name, nodes in {
        "large": (Node("resize", ("x",), ("a",), settings=side),) * 1,
        "large, then float": (
            Node("resize", ("x",), ("a",), settings={**side, "method": "nearest"}),
            Node("scale", ("a",), ("b",)),
        ),
        "padded again and again": tuple(
            Node("pad", ("x" if i == 0 else f"p{i}",), (f"p{i + 1}",), settings=pad)
            for i in range(20)
        ),
        "doubled again and again": (
            Node("reshape", ("x",), ("t0",), settings={"shape": [-1]}),
            *twice,
        ),
        "all held": (
            *(
                Node("pad", ("x",), (f"p{i}",), settings={"top": 8000, "left": 2000})
                for i in range(20)
            ),
            *(Node("grey", (f"p{i}",), (f"g{i}",)) for i in range(20)),
        ),
        "a side of 2^53": (Node("resize", ("x",), ("a",), settings={**side, "width": 2**53 - 1}),),
        "shapes of 2^31": (Node("reshape", ("x",), ("a",), settings={"shape": [2**31 - 1] * 7}),),
        "65 nodes": tuple(Node("scale", ("x",), (f"s{i}",)) for i in range(65)),
    }.items():
        yield Attempt(name, lambda nodes=nodes: run(MODEL, *nodes))


@hostile("mutated_programs", Reason.GOLDEN_MISMATCH, Reason.MALFORMED, sample=200)
def mutated_programs(ground: Ground) -> Iterator[Attempt]:
    """Every step with every setting at strange values, strange files, and names crossed."""
    chance = random.Random(18)
    for op, step in STEPS.items():
        good = dict(LEAST.get(op, {}))
        needed = "v/words.txt" if step.file is File.MUST else ""
        plain = Node(op, ("x",) * step.takes.start, ("g0",), needed, good)
        yield Attempt(f"{op}: as it should be", lambda node=plain: run(MODEL, node), same=PASSED)
        for name in [*step.settings.__dataclass_fields__, "more"]:
            for value in WORDS:
                node = replace(plain, settings={**good, name: value})
                label = f"{op}: {name} = {str(value)[:20]!r}"
                yield Attempt(label, lambda node=node: run(MODEL, node), same=PASSED)
                other = replace(
                    node,
                    inputs=("x",) * chance.choice((1, 1, 2)),
                    outputs=tuple(f"g{i}" for i in range(chance.choice((1, 1, 2, 4)))),
                    file=chance.choice((needed, "labels.txt", "v/m.onnx", "../x")),
                )
                yield Attempt(f"{label}, more", lambda node=other: run(MODEL, node), same=PASSED)
