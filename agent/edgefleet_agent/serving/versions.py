"""Which version of a slot a request goes to: the one that it names, or the stable one.

Where a canary stands beside the stable version, chance gives it its share of what names none.
"""

from __future__ import annotations

import random

from edgefleet_agent.serving.door import Places
from edgefleet_agent.serving.route import STABLE
from edgefleet_agent.serving.router import Entry


def of_slot(entries: tuple[Entry, ...], slot: str) -> tuple[Entry, ...]:
    """What is routed in a slot, the stable version first."""
    return tuple(entry for entry in entries if entry.route.slot == slot)


def named(entries: tuple[Entry, ...], places: Places) -> Entry | None:
    """Of the entries of a slot, the one that a path means."""
    for entry in entries:
        route = entry.route
        if "version" in places:
            if str(route.version) == places["version"]:
                return entry
        elif route.label == places.get("label", STABLE):
            return entry
    return None


def drawn(entries: tuple[Entry, ...], stable: Entry, places: Places) -> Entry:
    """Where a request goes that was to go to `stable`: to the canary, if chance picks it.

    One that has no worker, or no room in its queue, gets nothing.
    """
    if "version" in places or "label" in places:
        return stable
    for entry in of_slot(entries, stable.route.slot):
        if entry.route.is_canary and entry.link.has_room and random.random() < entry.route.share:
            return entry
    return stable
