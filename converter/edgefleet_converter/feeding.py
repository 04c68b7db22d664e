"""The data of a recipe: read as clients send it, and laid out as the model takes it."""

from __future__ import annotations

from pathlib import Path

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Arrays, save_tensors
from edgefleet_converter.bench import CALIBRATION, HELD_OUT, Bench
from edgefleet_converter.examples import Examples, load_held_out, load_inputs
from edgefleet_converter.program import Files, Linked, link, place_files
from edgefleet_converter.program_runner import ready, run_rows
from edgefleet_converter.recipe import Recipe


def load_data(recipe: Recipe) -> tuple[Examples | None, Examples]:
    """The calibration examples, if there are any, and those that are held out.

    Raises:
        OperatorError: not readable, empty, of different lengths, or not finite.
    """
    data = recipe.data
    calibration = None
    if data.calibration:
        calibration = load_inputs(recipe.path(data.calibration), what="calibration")
    held_out = load_held_out(recipe.path(data.held_out), has_sequences=recipe.is_stateful)
    return calibration, held_out


def lay_out(
    bench: Bench, calibration: Examples | None, held_out: Examples, inputs: tuple[str, ...]
) -> None:
    """Put what the model takes where the workers take it from: examples, after the first steps.

    Raises:
        OperatorError: an input is missing, or a step cannot work on an example, which is named.
    """
    linked = link(
        bench.recipe.before,
        (),
        inputs=inputs,
        outputs=("model",),
        files=Files(place_files(bench.recipe.before), labels=False),
    )
    for examples, what, name in (
        (calibration, "calibration", CALIBRATION),
        (held_out, "held-out", HELD_OUT),
    ):
        if examples is not None:
            fed = fed_by(bench.recipe, linked, examples, what=what)
            save_tensors(bench.scratch / name, "input", fed)


def fed_by(recipe: Recipe, linked: Linked, examples: Examples, *, what: str) -> Arrays:
    """What the model takes of examples that clients send, in the order of its inputs.

    Raises:
        OperatorError: naming the example and the step.
    """
    ordered = examples.ordered(linked.sent, what=what)
    if not linked.before:
        return ordered.inputs
    graph = ready(linked.before, step_paths(recipe))
    feeds = dict(zip(linked.sent, ordered.inputs, strict=True))
    given = run_rows(graph, feeds, linked.fed, what=f"{what} data")
    return tuple(given[name] for name in linked.fed)


def step_paths(recipe: Recipe) -> dict[str, Path]:
    """Where the files of the recipe's steps lie, by their path in the bundle.

    Raises:
        OperatorError: one cannot be read.
    """
    found = {}
    for name, place in place_files((*recipe.before, *recipe.after)).items():
        path = recipe.path(name)
        if not path.is_file():
            raise OperatorError(f"cannot read {path}: no such file")
        found[place] = path
    return found
