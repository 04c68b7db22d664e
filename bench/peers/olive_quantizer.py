"""Olive: its pass `OnnxStaticQuantization` as it is, and the best of its settings.

Olive 0.13 cannot write down a search with a metric of the user's (`Metric.backend` is None then,
and its serializer asks it for `model_dump`), so its workflow is run for each point of the grid.
"""

import os

os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"

import logging
import shutil
from pathlib import Path

import onnx
import torch
from olive.data.registry import Registry  # reads the variable
from olive.workflows import run
from quantizing import JOB, calibration, choose, finish, run_onnx

MODEL = Path("model.onnx")


class Examples(torch.utils.data.Dataset):
    """Feeds of one example each; the labels are not looked at."""

    def __init__(self):
        self.x, self.name = calibration(), onnx.load(MODEL).graph.input[0].name

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {self.name: self.x[index]}, 0


@Registry.register_dataset()
def examples(**_):
    return Examples()


def config(**given):
    cpu = {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}
    return {
        "input_model": {"type": "ONNXModel", "model_path": str(MODEL)},
        "systems": {"here": {"type": "LocalSystem", "accelerators": [cpu]}},
        "host": "here",
        "target": "here",
        "data_configs": [
            {
                "name": "ours",
                "type": "DataContainer",
                "load_dataset_config": {"type": "examples"},
                "pre_process_data_config": {"type": "skip_pre_process"},
                "post_process_data_config": {"type": "skip_post_process"},
                "dataloader_config": {"type": "default_dataloader", "params": {"batch_size": 32}},
            }
        ],
        "cache_dir": "cache",
        "output_dir": "out",
        "log_severity_level": 4,
    } | given


def made(quantize):
    """The file that a workflow of this one pass gives, its weights inside."""
    shutil.rmtree("out", ignore_errors=True)
    run(config(passes={"int8": quantize}))
    (path,) = Path("out").rglob("*.onnx")
    return onnx.load(path).SerializeToString()


def main():
    MODEL.write_bytes(Path("model").read_bytes())
    quantize = {"type": "OnnxStaticQuantization", "data_config": "ours"}
    if JOB["way"] == "default":
        finish(made(quantize), "OnnxStaticQuantization")
        return
    tried = []
    for method in ("MinMax", "Entropy", "Percentile"):
        for by_channel in (True, False):
            given = {"calibrate_method": method, "per_channel": by_channel}
            given |= {"activation_type": "uint8", "precision": "int8", "quant_preprocess": True}
            words = f"{method} {'channel' if by_channel else 'tensor'} UInt8"
            tried.append((words, lambda given=given: made(quantize | given)))
    choose(tried, run_onnx)


logging.disable(logging.WARNING)
main()
