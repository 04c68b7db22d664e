"""What each key of a recipe means: the words of docs/spec/recipe.md, for editors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

WORDS: Final[Mapping[str, str]] = {
    "targets": "what to build, in the publisher's order of preference: a device takes the first "
    "variant that it can run",
    "data.calibration": "examples from which ranges are taken: a file, a folder or "
    "module:function, see section 3",
    "data.held_out": "examples that training did not see, likewise; y holds the true classes",
    "data.labels": "a text file with one class name a line",
    "source.trusted_types": "classes in a .skops file that may be loaded beside scikit-learn's own",
    "parity.max_abs_err": "how far a float copy may stray from its source",
    "budget.max_accuracy_drop": "the accuracy that a variant may lose, as a share: 0.02 is two "
    "points",
    "budget.min_accuracy": "the least accuracy of each variant, as a share",
    "budget.min_sqnr_db": "the least signal to quantization noise ratio of its outputs, dB",
    "golden.vectors": "how many examples the device must reproduce, 1 to 256",
    "golden.inputs": "where their inputs come from: drawn, or held-out: section 18",
    "measure.enabled": "whether speed and memory are measured",
    "measure.runs": "over how many inferences",
    "measure.devices": "the boards to measure on: section 15",
    "measure.repeat": "how many rounds each model is measured in, on devices",
    "measure.timeout_s": "the seconds that a model may take in a round, on devices",
    "measure.token_file": "a file with the token of boards whose agents run",
    "measure.ca": "a PEM file that vouches for boards whose agents run",
    "limits.p95_factor": "signed limit of one inference: this times the measured 95th percentile",
    "limits.p95_floor_ms": "signed limit of one inference: at least so many ms",
    "limits.load_factor": "signed limit of load to first answer: this times what was measured",
    "limits.load_floor_ms": "signed limit of load to first answer: at least so many ms",
    "limits.ram_extra_mib": "signed limit of memory: measured, plus this",
    "drift.enabled": "whether histograms of the held-out examples go into the bundle, for devices "
    "to compare with",
    "drift.bins": "the most bins of a histogram, 2 to 64",
    "drift.least_examples": "a bin holds so many examples or none, 5 or more",
    "optimize.slim": "whether dead, constant and idle nodes are dropped",
    "optimize.offline": "the hardware class whose passes of onnxruntime are run ahead: arm64, "
    "armhf or x86-64",
    "optimize.mapped_weights": "whether weights are in a file of their own, which devices map",
    "worker.timeout_s": "the seconds that each conversion process may take",
    "worker.memory_mib": "the MiB of address space that each conversion process may use",
    "report.anchors": "whether other tools' int8 at their defaults is made and measured too",
    "report.sensitivity": "whether each layer is left float32 in turn, to see what it wins",
    "report.histograms": "whether the report shows the values that the quantizer cut off",
    "report.lambda_sweep": "whether the report shows what other lambdas would cost",
    "report.time_limit_s": "after so many seconds no new layer and no new lambda is begun",
    "before": "steps before the model, in order",
    "after": "steps behind the model, in order",
    "outputs": "what clients get, by name, where that is not what the last step gives",
    "state": "what a sequence carries on: an input of the model = the output that goes in next",
    "hidden_state": "the model keeps state by itself from one run to the next",
    "card.description": "what the model is",
    "card.task": "what it is for, such as classification",
    "card.licence": "an SPDX expression, or LicenseRef-… for one of your own",
    "card.authors": "who made it",
    "card.intended_use": "what it may be used for",
    "card.limitations": "what it is not good at",
    "card.training_data": "what the model was trained on: origin and licence",
    "models": "the models to join, by name: a bundle, or a file for each format",
    "nodes": "the graph, in order: models and steps",
    "formats": "the variants to make, in order",
}
