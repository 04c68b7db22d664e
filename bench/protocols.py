"""What a protocol costs: p50 of a request over the p50 of the bare session call, in one run.

The input is one row of 27,648 floats (96 x 96 x 3), the model a small convolutional net. Real
processes, one keep-alive client on loopback; the ways take turns, so that a busy moment hits all of
them. `*_added_ms` is the p50 less the bare call's, `*_kb` the size of a request.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgefleet_agent.ports import ModelSpec, StoredFile
from edgefleet_agent.runtime.onnx_engine import OnnxSession
from edgefleet_contract.bundle import Format, TensorSpec, Variant, sha256
from tests.agent.hosting import RunningHost, running

FLOATS = 96 * 96 * 3
X, Y = TensorSpec("x", "float32", (-1, FLOATS)), TensorSpec("y", "float32", (-1, 10))


def wide_spec(folder: Path) -> ModelSpec:
    """Two convolutions and a dense layer on a picture that comes as one row."""
    draw = np.random.default_rng(0).normal
    weights = {
        "A": draw(size=(16, 3, 3, 3)),
        "B": draw(size=(32, 16, 3, 3)),
        "C": draw(size=(32, 10)),
    }
    strides = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["x", "size"], ["picture"]),
            helper.make_node("Conv", ["picture", "A"], ["a"], **strides),
            helper.make_node("Relu", ["a"], ["a2"]),
            helper.make_node("Conv", ["a2", "B"], ["b"], **strides),
            helper.make_node("GlobalAveragePool", ["b"], ["c"]),
            helper.make_node("Flatten", ["c"], ["d"]),
            helper.make_node("MatMul", ["d", "C"], ["y"]),
        ],
        "wide",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", FLOATS])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 10])],
        [
            numpy_helper.from_array(np.array([-1, 3, 96, 96]), "size"),
            *(numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    raw = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    model, golden = folder / "wide.onnx", folder / "golden.npz"
    model.write_bytes(raw)
    x = np.zeros((1, FLOATS), np.float32)
    np.savez(golden, **{"input.0": x, "output.0": OnnxSession(raw, threads=1).run({"x": x})["y"]})
    variant = Variant(
        name="onnx-bench",
        format=Format.ONNX,
        precision="fp32",
        model=model.name,
        golden=golden.name,
        max_abs_err_e6=0,
        inputs=(X,),
        outputs=(Y,),
        runtimes={"onnxruntime": "0"},
    )
    return ModelSpec(
        slot="wide",
        model="wide",
        version=1,
        bundle_sha256=sha256(raw),
        variant=variant,
        engine="onnxruntime",
        files={
            path.name: StoredFile(str(path), sha256(path.read_bytes())) for path in (model, golden)
        },
    )


def requests(x: np.ndarray) -> dict[str, tuple[str, bytes, dict[str, str]]]:
    """Path, body and headers of each way."""
    infer = "/v2/models/wide/infer"
    tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape)}
    size = {"parameters": {"binary_data_size": x.nbytes}}
    head = json.dumps(
        {"inputs": [tensor | size], "parameters": {"binary_data_output": True}}
    ).encode()
    return {
        "json_v1": (
            "/v1/models/wide:predict",
            json.dumps({"instances": x.tolist()}).encode(),
            {},
        ),
        "json_v2": (
            infer,
            json.dumps({"inputs": [tensor | {"data": x.ravel().tolist()}]}).encode(),
            {},
        ),
        "binary_v2": (
            infer,
            head + x.tobytes(),
            {"Inference-Header-Content-Length": str(len(head))},
        ),
    }


def asker(
    here: RunningHost,
    connection: http.client.HTTPConnection,
    path: str,
    body: bytes,
    headers: dict[str, str],
) -> Callable[[], None]:
    def ask() -> None:
        answer = here.ask("POST", path, body, headers, connection)
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {answer.body[:200]!r}")

    return ask


def measure(rounds: int) -> dict[str, float]:
    """The figures of one run."""
    x = np.random.default_rng(1).random((1, FLOATS), np.float32)
    with tempfile.TemporaryDirectory() as folder, running() as here:
        spec = wide_spec(Path(folder))
        session = OnnxSession(Path(spec.files[spec.variant.model].path).read_bytes(), threads=1)
        failed = here.do(here.host.activate((spec,)))
        if failed is not None:
            raise SystemExit(failed.detail)
        connection = here.connect()
        asked = requests(x)
        ways: dict[str, Callable[[], object]] = {"raw": lambda: session.run({"x": x})}
        ways |= {name: asker(here, connection, *what) for name, what in asked.items()}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
        connection.close()
    p50 = {name: statistics.median(taken[rounds // 10 :]) for name, taken in seconds.items()}
    return {
        **{f"{name}_p50_ms": round(value * 1e3, 3) for name, value in p50.items()},
        **{f"{name}_over_raw": round(p50[name] / p50["raw"], 2) for name in asked},
        **{f"{name}_added_ms": round((p50[name] - p50["raw"]) * 1e3, 3) for name in asked},
        **{f"{name}_kb": round(len(body) / 1e3, 1) for name, (_, body, _) in asked.items()},
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench protocols", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="requests a way (default 200)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(argv)
    figures = measure(options.rounds)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>20} {value:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
