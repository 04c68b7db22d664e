"""The examples that a build uses: inputs for calibration, inputs and truth that are held out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract import codec
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Array, Arrays, load_examples
from edgefleet_converter.digests import describe
from edgefleet_converter.isolation import run_task
from edgefleet_converter.readers.reading import Form, form_of
from edgefleet_converter.recipe import Data, Worker
from edgefleet_converter.report import DataFile
from edgefleet_converter.scratch import scratch

TRUTH: Final = "y"
SEQUENCE: Final = "sequence"


@dataclass(frozen=True, slots=True)
class Examples:
    """Named inputs, each [N, …]; `truth` is [N] where the file has one.

    `starts` are the examples at which a sequence begins.
    """

    names: tuple[str, ...]
    inputs: Arrays
    described: DataFile
    truth: Array | None = None
    starts: tuple[int, ...] = (0,)

    def ordered(self, names: tuple[str, ...], *, what: str) -> Examples:
        """These in the order of a model's inputs; a single array needs no name.

        Raises:
            OperatorError: an input is missing, or an array is no input.
        """
        if len(names) == 1 and len(self.names) == 1:
            return self
        if set(names) != set(self.names):
            raise OperatorError(
                f"{what} data: it has {', '.join(self.names)}, the model takes {', '.join(names)}",
                hint="save one array for each input, under its name: numpy.savez(path, a=…, b=…)",
            )
        places = [self.names.index(name) for name in names]
        return replace(self, names=names, inputs=tuple(self.inputs[place] for place in places))

    @property
    def is_classification(self) -> bool:
        """Whether the truth names classes (whole numbers or names), not quantities."""
        return self.truth is not None and self.truth.dtype.kind in "iubU"

    def classes(self, labels: tuple[str, ...], answers: Array | None) -> NDArray[np.int64] | None:
        """The true class of each example as an index, if the truth names classes.

        `answers` are the model's, [N, C]; None where it has not been run.

        Raises:
            OperatorError: a class that the model does not have.
        """
        if self.truth is None or not self.is_classification:
            return None
        if self.truth.dtype.kind == "U":
            names = {name: index for index, name in enumerate(labels)}
            strangers = sorted(set(self.truth.tolist()) - set(names))
            if strangers:
                known = ", ".join(labels[:8]) + (", …" if len(labels) > 8 else "")
                raise OperatorError(
                    f"held-out data: class {strangers[0]!r} is not in the labels",
                    hint=f"data.labels is a text file with one class name a line; "
                    f"{f'it has {known}' if known else 'there are none'}",
                )
            return np.asarray([names[name] for name in self.truth.tolist()], np.int64)
        truth = self.truth.astype(np.int64)
        count = len(labels) if answers is None else width(answers)
        count = max(2, count) if count else int(truth.max()) + 1
        if truth.min() < 0 or truth.max() >= count:
            raise OperatorError(
                f"held-out data: classes {truth.min()} to {truth.max()}, the model has 0 to "
                f"{count - 1}",
                hint="y holds the index of the class among the model's outputs",
            )
        return truth


def width(answers: Array) -> int:
    """How many values an answer has, beside the axis that counts examples."""
    return int(answers.reshape(len(answers), -1).shape[1])


@dataclass(frozen=True, slots=True)
class Wish:
    """How data that is no array is read, and what the process that reads it may use."""

    data: Data = field(default_factory=lambda: Data(held_out=""))
    limits: Worker = field(default_factory=Worker)


def load_inputs(
    path: Path, *, what: str, has_sequences: bool = False, wish: Wish | None = None
) -> Examples:
    """Inputs from a `.npy` or `.npz`, or whatever `readers` read; a `y` in it is left aside.

    With `has_sequences`, an array `sequence` [N] says which one an example belongs to.

    Raises:
        OperatorError: not readable, empty, of different lengths, or not finite.
    """
    found, described = _found(path, wish or Wish(), what)
    truth = found.pop(TRUTH, None)
    sequence = found.pop(SEQUENCE, None) if has_sequences else None
    if not found:
        raise OperatorError(f"the {what} data {path} has no inputs beside {TRUTH!r}")
    sizes = {name: len(array) for name, array in found.items()}
    sizes |= {
        name: len(array)
        for name, array in ((TRUTH, truth), (SEQUENCE, sequence))
        if array is not None
    }
    lengths = set(sizes.values())
    if len(lengths) != 1:
        told = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise OperatorError(
            f"the {what} data {path} has arrays of different lengths: {told}",
            hint="the first dimension counts examples",
        )
    for name, array in found.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise OperatorError(f"the {what} data {path}: {name!r} holds NaN or infinity")
    described = replace(described, examples=lengths.pop())
    return Examples(tuple(found), tuple(found.values()), described, truth, _starts(sequence))


def _found(path: Path, wish: Wish, what: str) -> tuple[dict[str, Array], DataFile]:
    """The arrays in the data, and its digest and size."""
    form = form_of(path, what=what)
    if form is Form.ARRAYS:
        return load_examples(path, what=what), describe(path)
    data = wish.data
    with scratch() as folder:
        read = folder / "examples.npz"
        says = run_task(
            "read_data",
            what=f"reading the {what} data",
            limits=wish.limits,
            inputs={},
            outputs={"examples.npz": read},
            params={
                "path": str(path.absolute()),
                "form": form.value,
                "wish": {
                    "images": codec.encode(data.images),
                    "audio": codec.encode(data.audio),
                    "table": codec.encode(data.table),
                },
            },
        )
        return load_examples(read, what=what), codec.decode(DataFile, says, what="data")


def _starts(sequence: Array | None) -> tuple[int, ...]:
    """Where the name of the sequence changes."""
    if sequence is None:
        return (0,)
    names = sequence.reshape(len(sequence), -1).tolist()
    return tuple(i for i, name in enumerate(names) if i == 0 or name != names[i - 1])


def load_held_out(path: Path, *, has_sequences: bool = False, wish: Wish | None = None) -> Examples:
    """Held-out examples; `y` [N] is the truth, if the file has it.

    Raises:
        OperatorError: as `load_inputs`, or `y` is not one value an example.
    """
    examples = load_inputs(path, what="held-out", has_sequences=has_sequences, wish=wish)
    if examples.truth is not None and examples.truth.ndim != 1:
        raise OperatorError(
            f"the held-out data {path}: y has shape {list(examples.truth.shape)}, not [N]",
            hint="one class an example: of scores or ones and zeros, y.argmax(axis=1)",
        )
    return examples
