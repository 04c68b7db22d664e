"""What is declared against what there is: the steps from one to the other, and the drift. Pure.

A section that a file leaves out is not looked at. A step is made only where something differs, so
a second look after the first was carried out finds nothing to do. Nothing is taken away unless it
is asked for, and no rollout goes back to an older version unless the file allows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from edgefleet_fleet.apply_how import differences
from edgefleet_fleet.filter_parser import parse_filter
from edgefleet_fleet.filters import Filter, resolve

_WELL: Final = ("running", "completed", "superseded")
_ALIVE: Final = ("running", "paused", "scheduled")
_LATER: Final = "counts from the next version on; --again begins it anew"


@dataclass(frozen=True, slots=True)
class Group:
    """A filter with a name, as it is written out."""

    filter: str
    about: str = ""


@dataclass(frozen=True, slots=True)
class Hook:
    """An address, and what it is told."""

    url: str
    events: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A version of a model for whom a filter means; `words` are the rollout's, as written, `how`
    all of them, with what was left out (`apply_how.py`)."""

    model: str
    version: int
    slot: str
    to: str
    allow_downgrade: bool = False
    words: Mapping[str, Any] = field(default_factory=dict)
    how: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is called in a plan."""
        return f"{self.model}@{self.version} to {self.to}"


@dataclass(frozen=True, slots=True)
class Declared:
    """What a fleet is to be; None for a section that is left out."""

    fleet: str = ""
    groups: Mapping[str, Group] | None = None
    tags: Mapping[str, Mapping[str, str]] | None = None
    webhooks: Mapping[str, Hook] | None = None
    rollouts: tuple[Wanted, ...] | None = None


@dataclass(frozen=True, slots=True)
class DeviceNow:
    """A device's tags, and the version that it says it runs in each slot."""

    tags: Mapping[str, str] = field(default_factory=dict)
    runs: Mapping[str, tuple[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BundleNow:
    """A bundle on the shelf; `problem` is why it cannot be rolled out."""

    digest: str
    signature_sha256: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class RolloutNow:
    """A rollout; `to` is what its filter meant when it began, in full; `how` it goes, None where
    this program does not understand that."""

    id: str
    slot: str
    model: str
    version: int
    to: str
    state: str
    how: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Present:
    """What there is. `rollouts` are oldest first; `meant` are the devices of a filter in full."""

    fleet: str = ""
    groups: Mapping[str, Group] = field(default_factory=dict)
    devices: Mapping[str, DeviceNow] = field(default_factory=dict)
    webhooks: Mapping[str, Hook] = field(default_factory=dict)
    bundles: Mapping[tuple[str, int], BundleNow] = field(default_factory=dict)
    rollouts: tuple[RolloutNow, ...] = ()
    meant: Mapping[str, frozenset[str]] = field(default_factory=dict)


class Action(StrEnum):
    """What a step does."""

    ADD = "add"
    CHANGE = "change"
    ROLL_OUT = "roll-out"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Step:
    """One change; `body` is what the API is given."""

    action: Action
    noun: str
    name: str
    detail: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drift:
    """Something that is not as it is declared, or that is not declared."""

    noun: str
    name: str
    found: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps in their order; with anything in `blocked`, none is to be carried out."""

    steps: tuple[Step, ...] = ()
    unchanged: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    drift: tuple[Drift, ...] = ()


def groups_after(declared: Declared, present: Mapping[str, Group]) -> dict[str, Filter]:
    """The filters of all groups once what is declared is there."""
    named = {**present, **(declared.groups or {})}
    return {name: parse_filter(group.filter) for name, group in named.items()}


def in_full(wanted: Wanted, groups: Mapping[str, Filter]) -> str:
    """A rollout's filter with what each group means in its place, as a rollout keeps it.

    Raises:
        Malformed: it names a group that is neither declared nor there.
    """
    return str(resolve(parse_filter(wanted.to), groups))


def with_coming(present: Present, coming: Iterable[tuple[str, int]]) -> Present:
    """What there will be once these versions are on the shelf and released."""
    named = {key: BundleNow("", "") for key in coming}
    return replace(present, bundles={**named, **present.bundles})


def plan(declared: Declared, present: Present, *, prune: bool = False, again: bool = False) -> Plan:
    """The way from what there is to what is declared, safest first.

    Groups before who uses them, tags before rollouts, what is removed at the end. With `again`, a
    rollout whose other words than the version differ begins anew.
    """
    steps: list[Step] = []
    unchanged: list[str] = []
    blocked: list[str] = []
    drift: list[Drift] = []
    if declared.fleet and declared.fleet != present.fleet:
        blocked.append(f"this is fleet {present.fleet!r}, the file is for {declared.fleet!r}")
    for part in (_groups, _tags, _webhooks):
        for found in part(declared, present, prune):
            if isinstance(found, Step):
                steps.append(found)
            elif isinstance(found, Drift):
                drift.append(found)
            else:
                unchanged.append(found)
    groups = groups_after(declared, present.groups)
    for wanted in declared.rollouts or ():
        found_step, problem = _rollout(wanted, in_full(wanted, groups), present, again=again)
        if problem:
            blocked.append(problem)
        elif found_step is not None:
            steps.append(found_step)
        else:
            unchanged.append(f"rollout {wanted.name}")
    drift += _drift_of_rollouts(declared, present, groups, again=again)
    last = [step for step in steps if step.action is Action.REMOVE]
    first = [step for step in steps if step.action is not Action.REMOVE]
    return Plan(tuple(first + last), tuple(unchanged), tuple(blocked), tuple(drift))


def _groups(declared: Declared, present: Present, prune: bool) -> Iterator[Step | Drift | str]:
    if declared.groups is None:
        return
    for name in _users_last(declared.groups):
        group, there = declared.groups[name], present.groups.get(name)
        if there == group:
            yield f"group {name}"
            continue
        body = {"filter": group.filter, "about": group.about, "replace": True}
        action = Action.ADD if there is None else Action.CHANGE
        yield Step(action, "group", name, group.filter, body)
    extra = {name: group for name, group in present.groups.items() if name not in declared.groups}
    for name in reversed(_users_last(extra)):
        if prune:
            yield Step(Action.REMOVE, "group", name)
        else:
            yield Drift("group", name, "is not declared")


def _users_last(groups: Mapping[str, Group]) -> list[str]:
    """Names so that a group comes behind those that it names; a circle stays for the service."""
    order: dict[str, None] = {}

    def visit(name: str, inside: frozenset[str]) -> None:
        if name in order or name in inside or name not in groups:
            return
        for used in sorted(parse_filter(groups[name].filter).groups):
            visit(used, inside | {name})
        order[name] = None

    for name in groups:
        visit(name, frozenset())
    return list(order)


def _tags(declared: Declared, present: Present, prune: bool) -> Iterator[Step | Drift | str]:
    for device, tags in (declared.tags or {}).items():
        there = present.devices.get(device)
        if there is None:
            yield Drift("device", device, "is not enrolled; its tags wait")
            continue
        wrong = {key: value for key, value in tags.items() if there.tags.get(key) != value}
        extra = sorted(there.tags.keys() - tags.keys())
        if not prune and extra:
            yield Drift("device", device, f"has tags that are not declared: {', '.join(extra)}")
        remove = extra if prune else []
        if not wrong and not remove:
            yield f"tags of {device}"
            continue
        told = [*(f"{key}={value}" for key, value in wrong.items()), *(f"-{key}" for key in remove)]
        body = {"tags": wrong, "remove": remove}
        yield Step(Action.CHANGE, "tags", device, " ".join(told), body)


def _webhooks(declared: Declared, present: Present, prune: bool) -> Iterator[Step | Drift | str]:
    if declared.webhooks is None:
        return
    for name, hook in declared.webhooks.items():
        there = present.webhooks.get(name)
        if there == hook:
            yield f"webhook {name}"
            continue
        body = {"name": name, "url": hook.url, "events": list(hook.events)}
        action = Action.ADD if there is None else Action.CHANGE
        yield Step(action, "webhook", name, f"{hook.url} {' '.join(hook.events)}", body)
    for name in present.webhooks.keys() - declared.webhooks.keys():
        if prune:
            yield Step(Action.REMOVE, "webhook", name)
        else:
            yield Drift("webhook", name, "is not declared")


def _rollout(wanted: Wanted, to: str, present: Present, *, again: bool) -> tuple[Step | None, str]:
    """The rollout that is to begin, or why none may; neither where there is nothing to do."""
    newest = _newest(wanted, to, present)
    other = _otherwise(wanted, newest)
    if _is_it(wanted, newest) and not (again and other):
        return None, ""
    bundle = present.bundles.get((wanted.model, wanted.version))
    if bundle is None:
        return None, f"{wanted.model}@{wanted.version} is not on the shelf: fleet bundles push"
    if bundle.problem:
        return None, f"{wanted.model}@{wanted.version} {bundle.problem}"
    meant = present.meant.get(to, frozenset())
    running = [
        version
        for device in meant
        for model, version in [present.devices[device].runs.get(wanted.slot, ("", 0))]
        if model == wanted.model
    ]
    if newest is not None and newest.model == wanted.model:
        running.append(newest.version)
    highest = max(running, default=0)
    if highest > wanted.version and not wanted.allow_downgrade:
        return None, (
            f"{wanted.name} would go back from version {highest}: allow_downgrade is not set"
        )
    body = {
        "bundle": bundle.digest,
        "signature_sha256": bundle.signature_sha256,
        **wanted.words,
    }
    why = f": again, {'; '.join(other)}" if other else ""
    detail = f"{len(meant)} devices now{why}"
    return Step(Action.ROLL_OUT, "rollout", wanted.name, detail, body), ""


def _is_it(wanted: Wanted, newest: RolloutNow | None) -> bool:
    return newest is not None and (newest.model, newest.version) == (wanted.model, wanted.version)


def _otherwise(wanted: Wanted, newest: RolloutNow | None) -> list[str]:
    """How the rollout of what is wanted goes otherwise than the file says."""
    if newest is None or newest.how is None or not wanted.how or not _is_it(wanted, newest):
        return []
    return differences(wanted.how, newest.how)


def _newest(wanted: Wanted, to: str, present: Present) -> RolloutNow | None:
    mine = [row for row in present.rollouts if row.slot == wanted.slot and row.to == to]
    return mine[-1] if mine else None


def _drift_of_rollouts(
    declared: Declared, present: Present, groups: Mapping[str, Filter], *, again: bool
) -> Iterator[Drift]:
    if declared.rollouts is None:
        return
    expected: dict[tuple[str, str], Wanted] = {}
    for wanted in declared.rollouts:  # of two that mean a device, the later one counts
        to = in_full(wanted, groups)
        expected |= {(d, wanted.slot): wanted for d in sorted(present.meant.get(to, ()))}
        newest = _newest(wanted, to, present)
        if newest is not None and newest.version == wanted.version and newest.state not in _WELL:
            yield Drift("rollout", newest.id, f"is {newest.state}: fleet rollouts show")
        other = _otherwise(wanted, newest)
        if newest is not None and other and not again:
            yield Drift("rollout", newest.id, f"{'; '.join(other)}: {_LATER}")
    for (device, slot), wanted in sorted(expected.items(), key=lambda item: item[0]):
        runs = present.devices[device].runs.get(slot)
        if runs != (wanted.model, wanted.version):
            found = f"{runs[0]}@{runs[1]}" if runs else "nothing"
            words = f"runs {found} in {slot}, declared is {wanted.model}@{wanted.version}"
            yield Drift("device", device, words)
    slots = {wanted.slot for wanted in declared.rollouts}
    for row in present.rollouts:
        if row.state in _ALIVE and row.slot not in slots:
            yield Drift("rollout", row.id, f"is {row.state}, and slot {row.slot} is not declared")
    for slot in sorted({s for now in present.devices.values() for s in now.runs} - slots):
        count = sum(slot in now.runs for now in present.devices.values())
        yield Drift("slot", slot, f"is served by {count} devices, and not declared")
