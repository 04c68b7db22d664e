"""What golden vectors are chosen from [recipe-18]: inputs that are drawn, or held-out examples.

The shell of `golden` and `stand_ins`: it has the answers of all kernels made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract.bundle import Format
from edgefleet_converter import wholes
from edgefleet_converter.arrays import Arrays, load_tensors, save_tensors
from edgefleet_converter.bench import HELD_OUT, Answers, Bench
from edgefleet_converter.golden import refuse_idle
from edgefleet_converter.program_runner import Whole
from edgefleet_converter.recipe_golden import GoldenInputs
from edgefleet_converter.runners import Kernels
from edgefleet_converter.stand_ins import stand_ins, windows

_TIMES: Final = 8  # so many are drawn for each vector that is wanted
_TIMES_CALLS: Final = 4
_FEW: Final = 4  # fewer vectors need not move what the model gives
_MOST_VALUES: Final = 1 << 24  # of what is drawn, of an input
_INPUTS: Final = "golden_inputs.npz"


@dataclass(frozen=True, slots=True)
class Pool:
    """What went in and what came out, each [N, …]; the same by other kernels, by name, and of
    programs with what models give moved by a quantum.

    `held_out` are the answers to held-out examples, and the same by the other kernels in their
    order.
    """

    taken: Arrays
    given: Arrays
    kernels: dict[str, Arrays]
    held_out: tuple[Arrays, tuple[Arrays, ...]]
    nudges: tuple[Arrays, ...] = ()
    is_drawn: bool = True
    must_move: bool = True


def model_pool(
    bench: Bench, kind: Format, path: Path, answers: Answers, classes: NDArray[np.int64] | None
) -> Pool:
    """Of a model alone.

    Args:
        bench: does the work.
        kind: of the file.
        path: of the model's file.
        answers: to the held-out examples.
        classes: of each held-out example, if they are known.
    """
    taken = load_tensors(bench.scratch / HELD_OUT, "input")
    if bench.recipe.golden.inputs is GoldenInputs.HELD_OUT:
        others = bench.other_kernels(kind, path)
        seen = answers.arrays, tuple(others.values())
        return Pool(taken, answers.arrays, others, seen, is_drawn=False)
    batch = answers.inputs[0].shape[0] if answers.inputs[0].shape else -1
    drawn = stand_ins(taken, count=_count(bench, taken, batch), classes=classes)
    save_tensors(bench.scratch / _INPUTS, "input", joined(drawn, taken))
    others = bench.other_kernels(kind, path, data=_INPUTS, with_default=True)
    mine = others.pop(Kernels.DEFAULT.value)
    return _split(drawn, mine, others, (), answers.arrays)


def whole_pool(
    bench: Bench,
    whole: Whole,
    found: wholes.WholeAnswers,
    sequence: wholes.Sequence,
    sent: Arrays,
    quanta: dict[str, float],
    classes: NDArray[np.int64] | None,
) -> Pool:
    """Of a program.

    Args:
        bench: does the work.
        whole: the program.
        found: its answers to the held-out examples.
        sequence: what makes examples whole calls.
        sent: the held-out examples, as clients send them.
        quanta: the step of what each model gives, by path.
        classes: of each held-out example, if they are known.
    """
    if bench.recipe.golden.inputs is GoldenInputs.HELD_OUT:
        others = wholes.compare_whole(bench, whole, found, sequence, quanta)
        return Pool(
            found.taken,
            found.arrays,
            others.kernels,
            (found.arrays, tuple(others.kernels.values())),
            others.nudges,
            is_drawn=False,
        )
    one = sequence
    if sequence:
        times = 1 if sequence.hidden else _TIMES_CALLS
        fresh = windows(sent, count=times * bench.recipe.golden.vectors)
        one = replace(sequence, starts=(0,))
    else:
        fresh = stand_ins(sent, count=_count(bench, sent, found.batch), classes=classes)
    drawn = wholes.run_whole(bench, whole, fresh, one, what="running golden vectors")
    count = len(drawn.taken[0])
    both = replace(
        found,
        taken=joined(drawn.taken, found.taken),
        arrays=joined(drawn.arrays, found.arrays),
    )
    starts = (*one.starts, *(count + start for start in sequence.starts))
    apart = replace(sequence, starts=starts)
    others = wholes.compare_whole(bench, whole, both, apart, quanta, rows=count)
    pool = _split(drawn.taken, drawn.arrays, others.kernels, others.nudges, found.arrays)
    return replace(pool, must_move=not sequence.hidden)  # its first calls may well be quiet


def kept(pool: Pool, rows: tuple[int, ...], held_out: Arrays) -> tuple[Arrays, Arrays]:
    """The inputs of the chosen rows and their answers. A row's answer does not depend on its batch.

    Args:
        pool: what was chosen from.
        rows: the chosen ones.
        held_out: the answers to all held-out examples.

    Raises:
        OperatorError: the vectors hardly move what the model gives.
    """
    chosen = list(rows)
    vectors = tuple(a[chosen] for a in pool.taken), tuple(a[chosen] for a in pool.given)
    if pool.is_drawn and pool.must_move and len(chosen) >= _FEW:
        refuse_idle(vectors[1], held_out)
    return vectors


def _split(
    taken: Arrays,
    given: Arrays,
    kernels: dict[str, Arrays],
    nudges: tuple[Arrays, ...],
    held_out: Arrays,
) -> Pool:
    """What was drawn stands first in what the kernels said; the rest is of held-out examples."""
    count = len(taken[0])
    return Pool(
        taken,
        tuple(array[:count] for array in given),
        {name: tuple(array[:count] for array in one) for name, one in kernels.items()},
        (held_out, tuple(tuple(array[count:] for array in one) for one in kernels.values())),
        tuple(tuple(array[:count] for array in one) for one in nudges),
    )


def joined(first: Arrays, second: Arrays) -> Arrays:
    """The rows of both, one after the other."""
    return tuple(np.concatenate([a, b]) for a, b in zip(first, second, strict=True))


def _count(bench: Bench, inputs: Arrays, batch: int) -> int:
    """How many rows are drawn: enough to choose from, and whole batches."""
    wanted = bench.recipe.golden.vectors
    widest = max(int(np.prod(array.shape[1:])) for array in inputs)
    return max(wanted, batch, min(_TIMES * wanted, _MOST_VALUES // max(widest, 1)))
