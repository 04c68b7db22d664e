"""NNCF: `quantize` as it is, and `quantize_with_accuracy_control`, which takes layers back."""

import logging
import os

import onnx
from quantizing import JOB, calibration, finish, right, run_onnx, seen, sqnr_db

os.environ["NNCF_TELEMETRY_OFF"] = "1"
import nncf  # reads the variable

nncf.set_log_level(logging.ERROR)


def main():
    model = onnx.load("model")
    name, x = model.graph.input[0].name, calibration()
    rows = [{name: x[i : i + 1]} for i in range(len(x))]
    if JOB["way"] == "default":
        made = nncf.quantize(model, nncf.Dataset(rows), subset_size=len(rows))
        finish(made.SerializeToString(), "quantize")
        return
    held, says, truth = seen()
    whole = nncf.Dataset([0])  # the check runs all examples at once

    def check(one, _):
        answers = run_onnx(one.SerializeToString(), held)
        if truth is not None:
            return right(answers, truth)
        return 1 - 10 ** (-sqnr_db(says, answers) / 10)

    made = nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset(rows),
        whole,
        check,
        max_drop=JOB["max_drop"] if truth is not None else 10 ** (-JOB["min_sqnr_db"] / 10),
        drop_type=nncf.DropType.ABSOLUTE,
        subset_size=len(rows),
    )
    finish(made.SerializeToString(), "accuracy control")


main()
