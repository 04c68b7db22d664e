"""The `[[sources]]` of `agent.toml`: which there are, what they ask, and where results go.

    [[sources]]
    name = "door"
    kind = "camera"
    model = "people"
    device = "/dev/video0"
    sink = { kind = "mqtt", on = "change", at_least_every_s = 60 }

What is not a key of every source is an option of its kind, so a table stays flat.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edgefleet_agent.sources import kinds, options
from edgefleet_contract import codec
from edgefleet_contract.bundle import is_name
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import Malformed

EVERY, CHANGE = "every", "change"
IN_AGENT: Final = "mqtt"
"""The kind of source that is no process: its requests come over the agent's own connection."""


@dataclass(frozen=True, slots=True)
class SinkConfig:
    """Where results go, and which of them [wire-11.3].

    `deadband` is how far a number may move unsaid (scores: None says that only the class counts);
    `at_least_every_s`: after so long a result goes on its way in any case, 0: never.
    """

    kind: str
    on: str = CHANGE
    deadband: float | None = None
    at_least_every_s: float = 0.0
    options: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.on not in (EVERY, CHANGE):
            raise Malformed(f"on is {self.on!r}", hint="every or change")
        if (self.deadband or 0) < 0 or self.at_least_every_s < 0:
            raise Malformed("deadband or at_least_every_s is below 0")


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One source. `model` is the slot that it asks.

    `every_s` is how often it looks, s: at the folder, for a frame, at the sensors. `queue` is how
    many items wait for a model that is too slow, the newest ones, if the source cannot be made to
    wait; of kind `mqtt`, how many requests. A process that gives no sign of life for `stall_s` is
    killed and started anew.
    """

    name: str
    kind: str
    model: str
    sink: SinkConfig | None = None
    every_s: float = 1.0
    queue: int = 1
    stall_s: float = 60.0
    options: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, text in (("name", self.name), ("model", self.model)):
            if not is_name(text):
                raise Malformed(
                    f"{what} is {text[:80]!r}", hint="lower-case letters, digits, and - _ . inside"
                )
        if self.every_s < 0 or self.queue < 1 or self.stall_s < 1:
            raise Malformed(
                f"every_s {self.every_s:g}, queue {self.queue}, stall_s {self.stall_s:g}",
                hint="every_s is 0 or more, queue and stall_s are 1 or more",
            )
        if self.kind == IN_AGENT and self.sink is not None:
            raise Malformed("a source of kind mqtt answers whoever asks", hint="leave out its sink")
        if self.kind not in (IN_AGENT, "folder") and self.sink is None:
            raise Malformed(
                "it has no sink", hint='say where results go, for example sink = { kind = "mqtt" }'
            )


def parse_sources(value: Json, *, what: str) -> tuple[SourceConfig, ...]:
    """The sources in a list of tables.

    Raises:
        Malformed: a key or a kind that is not known, a name twice; the hint says what there is.
    """
    if not isinstance(value, list):
        raise Malformed(f"{what}: expected tables, [[sources]]")
    found = tuple(_source(table, f"{what}: sources[{i}]") for i, table in enumerate(value))
    names = [source.name for source in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise Malformed(f"{what}: two sources are called {min(twice)!r}")
    slots = [source.model for source in found if source.kind == IN_AGENT]
    if twice := {slot for slot in slots if slots.count(slot) > 1}:
        raise Malformed(f"{what}: two sources of kind mqtt are for {min(twice)!r}")
    return found


def _source(table: Json, at: str) -> SourceConfig:
    if not isinstance(table, dict):
        raise Malformed(f"{at}: expected a table")
    common, rest = _split(SourceConfig, table)
    sink = common.pop("sink", None)
    _check(kinds.SOURCES, common.get("kind"), rest, options.SOURCES, SourceConfig, at)
    told = {**common, "sink": _PLAIN} if sink is not None else common
    decoded = codec.decode(SourceConfig, told, what=at)
    made = _sink(sink, f"{at}.sink") if sink is not None else None
    if decoded.kind == IN_AGENT and "queue" not in common:
        decoded = dataclasses.replace(decoded, queue=8)
    return dataclasses.replace(decoded, sink=made, options=rest)


def _sink(table: Json, at: str) -> SinkConfig:
    if not isinstance(table, dict):
        raise Malformed(f"{at}: expected a table", hint='for example { kind = "mqtt" }')
    common, rest = _split(SinkConfig, table)
    _check(kinds.SINKS, common.get("kind"), rest, options.SINKS, SinkConfig, at)
    decoded = codec.decode(SinkConfig, common, what=at)
    return dataclasses.replace(decoded, options=rest)


_PLAIN: Final[dict[str, Json]] = {"kind": "log"}  # stands for a sink that is read by itself


def _split(kind: type, table: dict[str, Json]) -> tuple[dict[str, Json], dict[str, Json]]:
    known = _fields(kind) - {"options"}
    common = {key: value for key, value in table.items() if key in known}
    return common, {key: value for key, value in table.items() if key not in known}


def _check(
    group: str,
    kind: Json,
    rest: dict[str, Json],
    built_in: Mapping[str, type],
    common: type,
    at: str,
) -> None:
    """Hold the options of a kind that is built in against what it knows."""
    if not isinstance(kind, str):
        return  # which is said where the rest is read
    if kind not in built_in:
        installed = kinds.plugins(group)
        if kind not in installed:
            others = ", ".join(installed) or "none"
            raise Malformed(
                f"{at}: there is no kind {kind[:80]!r}",
                hint=f"built in: {', '.join(built_in)}; installed: {others}",
            )
        return
    if extra := sorted(set(rest) - _fields(built_in[kind])):
        known = sorted((_fields(common) - {"options"}) | _fields(built_in[kind]))
        raise Malformed(
            f"{at}: unknown field {extra[0][:80]!r}", hint=f"known fields: {', '.join(known)}"
        )
    codec.decode(built_in[kind], rest, what=at)


def _fields(kind: Any) -> set[str]:
    return {item.name for item in dataclasses.fields(kind)}
