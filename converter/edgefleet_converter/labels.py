"""Class names: from the recipe's file, else from the model itself."""

from __future__ import annotations

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Array
from edgefleet_converter.recipe import Recipe


def find_labels(recipe: Recipe, named: tuple[str, ...], answers: Array) -> tuple[str, ...]:
    """The class names of a model whose first output is `answers` [N, C]; empty if nobody says.

    Raises:
        OperatorError: the file cannot be read, a name is empty, or their number is not C.
    """
    labels, origin = named, "the model"
    if recipe.data.labels is not None:
        path = recipe.path(recipe.data.labels)
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
    width = answers.reshape(len(answers), -1).shape[1]
    if len(labels) != width and not (width == 1 and len(labels) == 2):
        raise OperatorError(f"{len(labels)} labels of {origin}, the model gives {width} values")
    return labels
