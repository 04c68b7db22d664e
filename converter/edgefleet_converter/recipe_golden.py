"""`[golden]` of a recipe: how many vectors a device must reproduce, and of which inputs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class GoldenInputs(StrEnum):
    """Where the inputs of golden vectors come from."""

    DRAWN = "drawn"
    HELD_OUT = "held-out"


@dataclass(frozen=True, slots=True)
class Golden:
    """How many examples the device must reproduce, and whether these are drawn or held-out ones."""

    vectors: int = 16
    inputs: GoldenInputs = GoldenInputs.DRAWN


def golden_checks(golden: Golden) -> tuple[tuple[str, bool], ...]:
    """What has to hold, with the words for when it does not."""
    return (("golden.vectors: 1 to 256", 1 <= golden.vectors <= 256),)
