"""The kinds of sources and sinks: those built in, and those of plug-ins, by entry point.

A plug-in is a package with an entry point in the group `edgefleet.sources` or `edgefleet.sinks`;
its name is the kind, and what it names is a `SourceKind` or a `SinkKind` (`plugin.py`). Listing
them runs none of their code. What is built in cannot be replaced.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from edgefleet_contract.errors import OperatorError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

SOURCES: Final = "edgefleet.sources"
SINKS: Final = "edgefleet.sinks"
BUILT_IN: Final = {
    SOURCES: {
        "camera": "edgefleet_agent.sources.camera",
        "folder": "edgefleet_agent.sources.folder",
        "sensor": "edgefleet_agent.sources.sensor",
        "synthetic": "edgefleet_agent.sources.synthetic",
    },
    SINKS: {
        "folder": "edgefleet_agent.sources.folder_sink",
        "log": "edgefleet_agent.sources.log_sink",
        "mqtt": "edgefleet_agent.sources.mqtt_sink",
    },
}
"""Modules by kind. The source `mqtt` is none: it is part of the agent."""


def plugins(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group, by kind; of two with one name the first on the path."""
    from importlib.metadata import entry_points  # costs every other command 10 ms

    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        found.setdefault(point.name, point)
    return found


def is_built_in(group: str, kind: str) -> bool:
    """Whether a kind is ours."""
    return kind in BUILT_IN[group]


def load(group: str, kind: str) -> Any:
    """What a kind's name stands for: runs a plug-in's code.

    Raises:
        OperatorError: there is no such kind, or it cannot be imported.
    """
    try:
        if is_built_in(group, kind):
            return import_module(BUILT_IN[group][kind])
        point = plugins(group).get(kind)
        if point is None:
            raise OperatorError(f"there is no kind {kind!r} in {group}")
        return point.load()
    except (ImportError, AttributeError) as error:
        raise OperatorError(f"kind {kind!r} cannot be loaded: {error}") from None
