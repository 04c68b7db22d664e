"""Names that a shell completes: asked of the control room, and only if it answers at once.

Whatever goes wrong (no token, nothing there, too slow), there are no names; a shell that completes
must not talk.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import typer

from edgefleet_contract.errors import EdgefleetError
from edgefleet_fleet.cli_options import DEFAULT_URL, client

_PATIENCE_S: Final = (0.3, 0.7)  # to connect, to answer


def devices(context: typer.Context, incomplete: str) -> list[str]:
    """The devices."""
    return _names(context, incomplete, "devices", "id")


def groups(context: typer.Context, incomplete: str) -> list[str]:
    """The groups."""
    return _names(context, incomplete, "groups", "name")


def bundles(context: typer.Context, incomplete: str) -> list[str]:
    """The bundles."""
    return _names(context, incomplete, "bundles", "name")


def models(context: typer.Context, incomplete: str) -> list[str]:
    """The models."""
    return _names(context, incomplete, "models", "model")


def webhooks(context: typer.Context, incomplete: str) -> list[str]:
    """The webhooks."""
    return _names(context, incomplete, "webhooks", "name")


def _names(context: typer.Context, incomplete: str, noun: str, key: str) -> list[str]:
    url = context.params.get("url") or os.environ.get("FLEET_URL") or DEFAULT_URL
    data = context.params.get("data") or os.environ.get("FLEET_DATA")
    try:
        found = client(url, Path(data) if data else None).get(f"/{noun}", timeout=_PATIENCE_S)
    except (EdgefleetError, OSError, ValueError):
        return []
    return sorted({row[key] for row in found[noun] if row[key].startswith(incomplete)})
