"""Which modules hold classes of hostile inputs."""

from __future__ import annotations

import importlib

MODULES = (
    *("documents", "signatures", "orders", "directories"),
    *("transfers", "deltas", "models", "board", "sealed", "control_room", "programs"),
)


def load_classes() -> None:
    """Fill `attempts.CLASSES`."""
    for name in MODULES:
        importlib.import_module(f"tests.hostile.{name}")
