"""What every quantizer's script shares: its job, its data, and how it takes one of what it tried.

A script runs in a folder with `model`, `calibration.npz` (`x`), `seen.npz` (`x`, what the float
model `says` to it, and `truth` where classes are known) and `job.json`; it leaves `int8` and
`said.json`. It takes what the search takes: of those inside the budget and within five percent of
the smallest when compressed, the one with the least noise.

What lies in this folder runs in a peer's own environment and imports nothing of this project.
"""

import json
import zlib
from pathlib import Path

import numpy as np

JOB = json.loads(Path("job.json").read_text()) if Path("job.json").exists() else {}
NEAR = 1.05


def calibration():
    """Examples [N, …], float32."""
    return np.load("calibration.npz")["x"]


def seen():
    """Held-out examples that may be tuned on: inputs, answers of the float model, classes or None.

    Where classes are not known but decided, the float model's stand for them.
    """
    data = np.load("seen.npz")
    truth = data.get("truth")
    if truth is None and JOB["has_classes"]:
        truth = decided(data["says"])
    return data["x"], data["says"], truth


def decided(scores):
    """The class of each row."""
    rows = scores.reshape(len(scores), -1)
    return (rows[:, 0] > 0.5).astype(int) if rows.shape[1] == 1 else rows.argmax(axis=1)


def right(scores, truth):
    """The share of rows that are decided as `truth` says."""
    return float((decided(scores) == truth).mean())


def sqnr_db(reference, copy):
    """Signal over noise."""
    noise = float(((reference.astype(np.float64) - copy) ** 2).sum())
    return 10 * np.log10(float((reference.astype(np.float64) ** 2).sum()) / max(noise, 1e-30))


def choose(tried, run):
    """Write the best of `tried` as `int8`: (words, a function that gives a file's bytes) each.

    `run(bytes, x)` gives a file's answers. One that fails is told and left.
    """
    x, says, truth = seen()
    found, failed = [], []
    for words, make in tried:
        try:
            raw = make()
            answers = run(raw, x)
        except Exception as error:  # noqa: BLE001  # a tool may raise anything
            failed.append(f"{words}: {type(error).__name__}: {error}")
            continue
        noise = sqnr_db(says, answers)
        drop = 0.0 if truth is None else right(says, truth) - right(answers, truth)
        fits = noise >= JOB["min_sqnr_db"] and drop <= JOB["max_drop"]
        found.append((words, raw, noise, fits, len(zlib.compress(raw, 9))))
    if not found:
        raise SystemExit("; ".join(failed)[:2000] or "nothing was tried")
    fit = [one for one in found if one[3]]
    near = [one for one in fit if one[4] <= NEAR * min(each[4] for each in fit)] or found
    words, raw, *_ = max(near, key=lambda one: one[2])
    finish(raw, words)


def finish(raw, words):
    """Leave the result."""
    Path("int8").write_bytes(raw)
    Path("said.json").write_text(json.dumps({"recipe": words}))


def run_onnx(raw, x):
    """The first output to all of `x`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    step = entry.shape[0] if isinstance(entry.shape[0], int) else len(x)
    parts = [
        session.run(None, {entry.name: x[i : i + step]})[0]
        for i in range(0, len(x) - len(x) % step, step)
    ]
    return np.concatenate(parts)


def run_tflite(raw, x):
    """The first output to all of `x`, one after the other."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import tensorflow

        Interpreter = tensorflow.lite.Interpreter  # noqa: N806  # a class

    model = Interpreter(model_content=raw, num_threads=1)
    entry, out = model.get_input_details()[0]["index"], model.get_output_details()[0]["index"]
    model.allocate_tensors()
    answers = []
    for row in range(len(x)):
        model.set_tensor(entry, x[row : row + 1])
        model.invoke()
        answers.append(model.get_tensor(out))
    return np.concatenate(answers)
