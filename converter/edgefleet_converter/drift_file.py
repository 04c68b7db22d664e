"""The file of a variant's drift reference in a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgefleet_contract.bundle import TensorSpec
from edgefleet_contract.drift_reference import render_reference
from edgefleet_converter.arrays import Array
from edgefleet_converter.drift import refer
from edgefleet_converter.recipe_drift import Drift

DRIFT: Final = "drift.json"


def write_drift(
    folder: Path,
    name: str,
    taken: Sequence[tuple[TensorSpec, Array]],
    given: Sequence[tuple[TensorSpec, Array]],
    *,
    labels: tuple[str, ...],
    wish: Drift,
    calls: bool = False,
) -> str | None:
    """The path of the reference of a variant, written below `folder`; None where `refer` has none.

    Args:
        folder: the bundle's.
        name: the variant's.
        taken: what clients send, and all of it that they sent.
        given: what they get, likewise.
        labels: class names, in their order.
        wish: of the recipe.
        calls: an example is a whole call.
    """
    found = refer(
        [spec for spec, _ in taken],
        tuple(array for _, array in taken),
        [spec for spec, _ in given],
        tuple(array for _, array in given),
        labels=labels,
        wish=wish,
        calls=calls,
    )
    if found is None:
        return None
    path = f"{name}/{DRIFT}"
    (folder / path).write_bytes(render_reference(found))
    return path
