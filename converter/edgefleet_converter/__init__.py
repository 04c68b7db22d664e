"""The desk: a trained model in, a signed bundle out.

    from edgefleet_converter import build

    built = build("digits.skops", "digits.toml", out="bundles", model="digits", version=1,
                  key="publisher.pem")

`edgefleet_converter.api` has this and all else that the commands do.

The names are imported when they are first used, so that a command that needs no model library
loads none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgefleet_converter.api import build
    from edgefleet_converter.assembly import Built
    from edgefleet_converter.recipe import Recipe, load_recipe
    from edgefleet_converter.report import Report

__all__ = ["Built", "Recipe", "Report", "build", "load_recipe"]

_PLACES = {
    "Built": "assembly",
    "build": "api",
    "Recipe": "recipe",
    "load_recipe": "recipe",
    "Report": "report",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
