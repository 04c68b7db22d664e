"""Class names: from the recipe's file, else from the model itself. A bundle has them in one file.

The steps that name classes use that very file, so that what a device says and what a page shows
beside it cannot differ.
"""

from __future__ import annotations

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Array
from edgefleet_converter.examples import width
from edgefleet_converter.recipe import Recipe


def find_labels(recipe: Recipe, named: tuple[str, ...], answers: Array | None) -> tuple[str, ...]:
    """The class names of a model whose first output is `answers` [N, C]; empty if nobody says.

    Where a step takes the labels, it is that step which holds their number against the classes.

    Raises:
        OperatorError: the file cannot be read, a name is empty, or their number is not C.
    """
    labels, origin = named, "the model"
    name = _file_of(recipe)
    if name:
        path = recipe.path(name)
        origin = str(path)
        try:
            labels = tuple(path.read_text("utf-8").splitlines())
        except OSError as error:
            raise OperatorError(f"cannot read the labels {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise OperatorError(f"the labels {path} are not UTF-8 text") from None
    if not labels:
        return ()
    if any(not name.strip() for name in labels):
        raise OperatorError(f"labels of {origin}: an empty line", hint="one class name a line")
    if answers is not None and not any(step.takes_labels for step in recipe.after):
        check_width(labels, answers, origin)
    return labels


def check_width(labels: tuple[str, ...], scores: Array, origin: str) -> None:
    """Refuse labels that are not as many as there are scores, [N, C]."""
    found = width(scores)
    if len(labels) != found and not (found == 1 and len(labels) == 2):
        raise OperatorError(f"{len(labels)} labels of {origin}, the model gives {found} values")


def _file_of(recipe: Recipe) -> str:
    """The one file of labels that a recipe names: under `data`, or at a step that takes labels."""
    named = [step.file for step in recipe.after if step.takes_labels and step.file]
    if recipe.data.labels is not None:
        named.append(recipe.data.labels)
    if len({*named}) > 1:
        raise OperatorError(
            f"labels are said twice: {named[-1]!r} and {named[0]!r}",
            hint="data.labels is enough: steps that name classes use that file",
        )
    return named[0] if named else ""
