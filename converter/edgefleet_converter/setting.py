"""What the variants of a bundle share: the steps laid around the model, and the files of those."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract.bundle import Role, Variant
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.graph import StatePair
from edgefleet_converter.feeding import step_paths
from edgefleet_converter.metrics import are_probabilities, decide
from edgefleet_converter.opening import Opened
from edgefleet_converter.program import LABELS, Files, link, place_files, tell
from edgefleet_converter.recipe import Recipe
from edgefleet_converter.whole_variants import Setting
from edgefleet_converter.wholes import Sequence


def set_up(
    recipe: Recipe,
    opened: Opened,
    labels: tuple[str, ...],
    folder: Path,
    truth: NDArray[np.int64] | None = None,
) -> tuple[Setting, dict[str, Role]]:
    """The steps around the model that was opened, their files in the bundle's folder; with roles.

    Raises:
        OperatorError: a name of a tensor is missing or stands twice, or a file cannot be read.
    """
    roles: dict[str, Role] = {}
    files: dict[str, Path] = {}
    for place, path in step_paths(recipe).items():
        (folder / place).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / place)
        files[place], roles[place] = folder / place, Role.VOCABULARY
    if labels:
        (folder / LABELS).write_text("".join(f"{one}\n" for one in labels), "utf-8")
        files[LABELS], roles[LABELS] = folder / LABELS, Role.LABELS
    state = tuple(StatePair(taken, given) for taken, given in recipe.state.items())
    linked = link(
        recipe.before,
        recipe.after,
        inputs=opened.inputs,
        outputs=opened.outputs,
        files=Files(place_files((*recipe.before, *recipe.after)), labels=bool(labels)),
        state=state,
        wanted=recipe.outputs,
    )
    examples = opened.held_out.ordered(linked.sent, what="held-out")
    sequence = Sequence(state, recipe.hidden_state, examples.starts)
    classes = truth
    if truth is None and opened.answers is not None and are_probabilities(opened.answers):
        classes = decide(opened.answers)
    return Setting(linked, labels, files, examples.inputs, sequence, classes), roles


def refuse_unlike(variants: tuple[Variant, ...]) -> None:
    """Refuse variants of which clients would have to know which one answers them.

    Raises:
        OperatorError: naming the two and what differs.
    """
    first = variants[0]
    for other in variants[1:]:
        for what, mine, theirs in (
            ("takes", tell(first.public_inputs), tell(other.public_inputs)),
            ("gives", tell(first.public_outputs), tell(other.public_outputs)),
        ):
            if mine != theirs:
                raise OperatorError(
                    f"{first.name} {what} {_words(mine)}, {other.name} {what} {_words(theirs)}",
                    hint="clients send and get the same, whichever variant a device runs",
                )


def _words(tensors: list[tuple[str, str, int]]) -> str:
    return ", ".join(f"{name} ({dtype}, rank {rank})" for name, dtype, rank in tensors)
