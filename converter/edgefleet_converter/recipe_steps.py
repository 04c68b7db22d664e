"""The steps that a recipe names, before the model and after it: read, and held against what exists.

In TOML a step's settings stand beside its name, with plain numbers. In `bundle.json` there are no
floats, so a number becomes the text that says it exactly where the step wants text: `0.485` becomes
"0.485", and "1/255" stays what it is.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, cast

from edgefleet_contract import codec
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import Malformed
from edgefleet_processing.step import File
from edgefleet_processing.table import STEPS

_NAMES: Final = ("step", "inputs", "outputs", "file")

_DEFAULT_OUTPUTS: Final[Mapping[str, tuple[str, ...]]] = {
    "top_k": ("score", "class"),
    "labels": ("label",),
    "argmax": ("class",),
    "softmax": ("probability",),
    "sigmoid": ("probability",),
}
"""What the tensors are called that a step gives, where the recipe does not say; else the step."""


@dataclass(frozen=True, slots=True)
class AskedStep:
    """A step as the recipe has it. Empty `inputs` and `outputs` follow the line of the steps."""

    step: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    file: str = ""
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def takes_labels(self) -> bool:
        """Whether its file has a class name a line: the labels of the bundle."""
        return self.step in ("top_k", "labels")

    def default_outputs(self, *, with_labels: bool) -> tuple[str, ...]:
        """What its tensors are called where the recipe does not say."""
        if self.step == "top_k" and with_labels:
            return ("label", "score")
        return _DEFAULT_OUTPUTS.get(self.step, (self.step,))


def step_table(table: Json, at: str) -> dict[str, Json]:
    """A table of TOML as the fields of an `AskedStep`: settings apart, and in their exact form.

    Raises:
        Malformed: no such step, or settings that it does not have; the known ones are named.
    """
    if not isinstance(table, dict):
        raise Malformed(f"{at}: expected a table, [[{at.rpartition('.')[2].partition('[')[0]}]]")
    name = table.get("step")
    step = STEPS.get(name) if isinstance(name, str) else None
    if step is None:
        raise Malformed(
            f"{at}: there is no step {str(name)[:80]!r}",
            hint=f"steps are: {', '.join(sorted(STEPS))}",
        )
    if "file" in table and step.file is File.NO:
        raise Malformed(f"{at}: {name} takes no file")
    kinds = typing.get_type_hints(step.settings)
    settings = {
        key: exact(value, kinds.get(key)) for key, value in table.items() if key not in _NAMES
    }
    codec.decode(step.settings, cast("Json", settings), what=f"{at} ({name})")
    return {**{key: table[key] for key in _NAMES if key in table}, "settings": settings}


def exact(value: Json, kind: object) -> Json:
    """A setting as a manifest has it: a number is text where the step takes text.

    >>> exact([0.485, 1], tuple[str, ...])
    ['0.485', '1']
    """
    if typing.get_origin(kind) is tuple and isinstance(value, list):
        inner = typing.get_args(kind)[0]
        return [exact(item, inner) for item in value]
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value).replace("e+", "e")
    return value
