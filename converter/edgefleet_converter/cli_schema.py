"""`edge-convert schema`: what a recipe may say, for editors."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from edgefleet_converter.cli_options import print_json


class Described(StrEnum):
    """What has a schema."""

    RECIPE = "recipe"
    JOIN = "join"


def schema(
    of: Annotated[Described, typer.Argument(help="What to describe.")] = Described.RECIPE,
) -> None:
    """Print the JSON Schema of a recipe, or of the graph of a join: for editors."""
    from edgefleet_converter.recipe_schema import join_schema, recipe_schema

    print_json(recipe_schema() if of is Described.RECIPE else join_schema())
