"""Groups: filters with a name, and the tags of devices that they may ask for.

A group is not a list of devices: who is in it follows from what devices report and how they are
tagged. A rollout keeps what its groups meant when it began.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from edgefleet_contract.bundle import is_name
from edgefleet_contract.errors import Malformed
from edgefleet_fleet import paging
from edgefleet_fleet.adapters.sql.store import Transaction
from edgefleet_fleet.certificates import Certificates
from edgefleet_fleet.deployments import Deployments
from edgefleet_fleet.device_traits import traits_of
from edgefleet_fleet.errors import Conflict, NotFound
from edgefleet_fleet.filter_parser import parse_filter
from edgefleet_fleet.filters import Filter, resolve
from edgefleet_fleet.paging import Page
from edgefleet_fleet.records import Device, GroupRow
from edgefleet_fleet.work import Actor, Room

MAX_TAGS: Final = 64
MAX_VALUE: Final = 128
_MAX_ABOUT: Final = 256


def meant(tx: Transaction, text: str) -> Filter:
    """What a filter means, with every group's own filter in the group's place.

    Raises:
        Malformed: it is not understood, or a group is not known.
    """
    return resolve(parse_filter(text), tx.groups.filters())


def devices_of(tx: Transaction, wanted: Filter, *, revoked: bool = False) -> tuple[Device, ...]:
    """The devices that a filter means, by name."""
    known = tx.devices.list(revoked=revoked)
    return tuple(found for found in known if wanted.matches(traits_of(found)))


def page_of(
    tx: Transaction, wanted: Filter, *, limit: int, after: str = ""
) -> tuple[Page[Device], int]:
    """A page of the devices that a filter means, by name, also of revoked ones; and how many."""
    if wanted == Filter():
        rows = tx.devices.page(limit=limit + 1, after=after, revoked=True)
        return paging.page_of(rows, _by_name, limit=limit), tx.devices.count(revoked=True)
    found = devices_of(tx, wanted, revoked=True)
    return paging.cut(found, _by_name, limit=limit, after=(after,)), len(found)


def members(tx: Transaction, rows: Sequence[GroupRow]) -> list[tuple[Device, ...]]:
    """The devices that are in each of these groups now, by name; each device is looked at once."""
    wanted = [meant(tx, row.filter) for row in rows]
    known = [(found, traits_of(found)) for found in tx.devices.list()] if rows else []
    return [tuple(found for found, traits in known if one.matches(traits)) for one in wanted]


def _by_name(device: Device) -> paging.Key:
    return (device.id,)


class Groups:
    """The groups of a fleet, and the tags of its devices."""

    def __init__(self, room: Room, deployments: Deployments) -> None:
        self._room, self._deployments = room, deployments
        self._certificates = Certificates(room)

    def put(
        self, name: str, text: str, *, about: str = "", replace: bool = False, actor: Actor
    ) -> GroupRow:
        """Make a group.

        Raises:
            Malformed: the name or the filter is not understood, or the group would mean itself.
            Conflict: there is one, and it is not to be replaced.
        """
        if not is_name(name):
            raise Malformed(f"group {name[:80]!r}: a group is named [a-z0-9][a-z0-9._-]*")
        if len(about) > _MAX_ABOUT:
            raise Malformed(f"about: {len(about)} characters, at most {_MAX_ABOUT}")
        wanted = parse_filter(text)
        with self._room.work(actor) as work:
            if work.tx.groups.get(name) is not None and not replace:
                raise Conflict(f"there is a group {name!r}", hint="say that it is to be replaced")
            resolve(Filter(wanted.wanted), work.tx.groups.filters() | {name: wanted}, (name,))
            row = GroupRow(name, str(wanted), about, work.now, actor.who)
            work.tx.groups.put(row)
            work.record("group.put", name, row.filter)
            work.changed("group", name)
        return row

    def delete(self, name: str, *, actor: Actor) -> None:
        """Forget a group; rollouts that named it keep what it meant.

        Raises:
            NotFound: there is none.
            Conflict: another group names it.
        """
        with self._room.work(actor) as work:
            if work.tx.groups.get(name) is None:
                raise NotFound(f"there is no group {name!r}", hint="fleet groups list")
            users = [at for at, found in work.tx.groups.filters().items() if name in found.groups]
            if users:
                raise Conflict(f"group {name!r} is named by {', '.join(sorted(users))}")
            work.tx.groups.drop(name)
            work.record("group.delete", name)
            work.changed("group", name)

    def tag(
        self, device: str, tags: Mapping[str, str], remove: Collection[str], *, actor: Actor
    ) -> dict[str, str]:
        """Set and remove tags of a device; all that it has then.

        Rollouts that mean the device now, and did not before, take it in.

        Raises:
            NotFound: there is no such device, or it has no such tag.
            Malformed: a tag that is none, or too many.
        """
        for key, value in tags.items():
            _check(key, value)
        with self._room.work(actor) as work:
            found = self._certificates.require_active(work, device)
            missing = sorted(set(remove) - found.tags.keys())
            if missing:
                raise NotFound(f"{device} has no tag {missing[0]!r}")
            kept = {key: value for key, value in found.tags.items() if key not in remove}
            after = dict(sorted((kept | dict(tags)).items()))
            if len(after) > MAX_TAGS:
                raise Malformed(f"{len(after)} tags, a device has at most {MAX_TAGS}")
            if after == found.tags:
                return after
            work.tx.devices.set_tags(device, after)
            told = [f"{key}={value}" for key, value in tags.items()]
            work.record("device.tag", device, " ".join([*told, *(f"-{key}" for key in remove)]))
            work.changed("device", device)
            self._deployments.welcome(work, device)
        return after


def _check(key: str, value: str) -> None:
    if not is_name(key):
        raise Malformed(f"tag {key[:80]!r}: a tag is named [a-z0-9][a-z0-9._-]*")
    if not 0 < len(value) <= MAX_VALUE or not value.isprintable():
        raise Malformed(f"tag {key}: 1 to {MAX_VALUE} printable characters are a value")
