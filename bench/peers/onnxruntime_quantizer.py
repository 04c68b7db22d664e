"""onnxruntime's static quantizer.

By default: QDQ, signed activations, one scale a tensor, extremes. At its best: the model
pre-processed, and of three calibrators, by tensor and by channel, unsigned activations with signed
weights (what processors with VNNI multiply fastest) as well as signed ones.
"""

from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from quantizing import JOB, calibration, choose, finish, run_onnx


class Reader(CalibrationDataReader):
    """Examples 32 at a time."""

    def __init__(self) -> None:
        name, x = onnx.load("model").graph.input[0].name, calibration()
        self.feeds = iter([{name: x[i : i + 32]} for i in range(0, len(x), 32)])

    def get_next(self):
        return next(self.feeds, None)


def made(source, **given):
    """The file with these settings."""
    quantize_static(source, "out", Reader(), **given)
    return Path("out").read_bytes()


def main():
    if JOB["way"] == "default":
        finish(made("model"), "QDQ s8s8 tensor MinMax")
        return
    quant_pre_process("model", "prepared")
    tried = []
    for method in ("MinMax", "Percentile", "Entropy"):
        for by_channel in (True, False):
            for sign in (QuantType.QUInt8, QuantType.QInt8):
                if sign is QuantType.QInt8 and method != "MinMax":
                    continue
                given = {
                    "per_channel": by_channel,
                    "activation_type": sign,
                    "weight_type": QuantType.QInt8,
                    "calibrate_method": CalibrationMethod[method],
                }
                words = f"{method} {'channel' if by_channel else 'tensor'} {sign.name[1:]}"
                tried.append((words, lambda given=given: made("prepared", **given)))
    choose(tried, run_onnx)


np.random.seed(0)
main()
