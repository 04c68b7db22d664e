"""`fleet.yaml`: what a fleet is to be, parsed once and strictly [apply-1.1].

The words of a rollout are those that the API takes (`RolloutBody`), whatever they are: a word that
is added there can be written here. Every refusal names the line, the column and the key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from edgefleet_contract import codec
from edgefleet_contract.bundle import is_name
from edgefleet_contract.errors import Malformed
from edgefleet_contract.order_policy import Policy
from edgefleet_fleet.api_rollouts import RolloutBody
from edgefleet_fleet.apply_how import how
from edgefleet_fleet.apply_plan import Declared, Group, Hook, Wanted
from edgefleet_fleet.cohort import parse_waves
from edgefleet_fleet.filter_parser import parse_filter
from edgefleet_fleet.webhooks import check as check_webhook
from edgefleet_fleet.yaml_file import Document, Path, read

T = TypeVar("T")
VERSION: Final = 1
SECTIONS: Final = ("version", "fleet", "groups", "tags", "webhooks", "models")
GIVEN: Final = frozenset({"bundle", "signature_sha256"})
"""What a rollout has that follows from the model and its version."""
_NO_DIGEST: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class _Reader:
    document: Document

    def mapping(self, path: Path, value: Any) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.document.refuse(path, "is to be a mapping")
        return value

    def text(self, path: Path, value: Any) -> str:
        if not isinstance(value, str):
            self.document.refuse(path, f"is to be a text; write it in quotes: '{value}'")
        return value

    def name(self, path: Path) -> str:
        if not is_name(str(path[-1])):
            self.document.refuse(path, "a name is [a-z0-9][a-z0-9._-]*")
        return str(path[-1])

    def keys(self, path: Path, value: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in value:
            if key not in known:
                close = get_close_matches(key, known, 1)
                hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
                self.document.refuse((*path, key), "there is no such key", hint=hint)

    def held(self, path: Path, check: Callable[[], T]) -> T:
        try:
            return check()
        except Malformed as error:
            self.document.refuse(path, error.message, hint=error.hint)


def rollout_words() -> tuple[str, ...]:
    """What can be said of a rollout in a file."""
    return tuple(name for name in RolloutBody.model_fields if name not in GIVEN)


def parse(text: str, *, name: str) -> Declared:
    """What a file declares.

    Raises:
        OperatorError: it is not one; with the place of what is wrong.
    """
    document = read(text, name=name)
    reader = _Reader(document)
    root = reader.mapping((), document.value)
    reader.keys((), root, SECTIONS)
    if root.get("version") != VERSION:
        document.refuse(("version",), f"is to be {VERSION}: the form of this file")
    sections = {key: reader.mapping((key,), root[key]) for key in SECTIONS[2:] if key in root}
    return Declared(
        fleet=reader.text(("fleet",), root["fleet"]) if "fleet" in root else "",
        groups=_groups(reader, sections["groups"]) if "groups" in sections else None,
        tags=_tags(reader, sections["tags"]) if "tags" in sections else None,
        webhooks=_webhooks(reader, sections["webhooks"]) if "webhooks" in sections else None,
        rollouts=_models(reader, sections["models"]) if "models" in sections else None,
    )


def _groups(reader: _Reader, section: Mapping[str, Any]) -> dict[str, Group]:
    found = {}
    for key, value in section.items():
        path: Path = ("groups", key)
        name = reader.name(path)
        if isinstance(value, str):
            value = {"filter": value}
        value = reader.mapping(path, value)
        reader.keys(path, value, ("filter", "about"))
        text = reader.text((*path, "filter"), value.get("filter"))
        reader.held((*path, "filter"), lambda text=text: parse_filter(text))  # type: ignore[misc] # bound at once
        about = reader.text((*path, "about"), value.get("about", ""))
        found[name] = Group(str(parse_filter(text)), about)
    return found


def _tags(reader: _Reader, section: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    found = {}
    for device, value in section.items():
        path: Path = ("tags", device)
        tags = reader.mapping(path, value)
        for key in tags:
            reader.name((*path, key))
        found[reader.name(path)] = {key: reader.text((*path, key), tags[key]) for key in tags}
    return found


def _webhooks(reader: _Reader, section: Mapping[str, Any]) -> dict[str, Hook]:
    found = {}
    for name, value in section.items():
        path: Path = ("webhooks", name)
        value = reader.mapping(path, value)
        reader.keys(path, value, ("url", "events"))
        events = value.get("events", ["rollout.*"])
        if not isinstance(events, list):
            reader.document.refuse((*path, "events"), "is to be a list")
        url = reader.text((*path, "url"), value.get("url"))
        named = tuple(reader.text((*path, "events", i), e) for i, e in enumerate(events))
        reader.held(path, lambda url=url, named=named: check_webhook(url, named))  # type: ignore[misc] # bound at once
        found[reader.name(path)] = Hook(url, named)
    return found


def _models(reader: _Reader, section: Mapping[str, Any]) -> tuple[Wanted, ...]:
    found = []
    for model, value in section.items():
        path: Path = ("models", model)
        reader.name(path)
        if isinstance(value, list):
            found += [_wanted(reader, (*path, i), model, each) for i, each in enumerate(value)]
        else:
            found.append(_wanted(reader, path, model, value))
    return tuple(found)


def _wanted(reader: _Reader, path: Path, model: str, value: Any) -> Wanted:
    value = dict(reader.mapping(path, value))
    reader.keys(path, value, ("version", *rollout_words()))
    version = value.pop("version", None)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        reader.document.refuse((*path, "version"), "is to be a number from 1 on")
    given = dict.fromkeys(GIVEN, _NO_DIGEST)
    try:
        body = RolloutBody.model_validate(given | value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        reader.document.refuse((*path, *first["loc"]), first["msg"])
    reader.held((*path, "to"), lambda: parse_filter(body.to))
    waves = ",".join(map(str, body.waves))
    reader.held((*path, "waves"), lambda: parse_waves(waves))
    reader.held((*path, "policy"), lambda: codec.decode(Policy, body.policy, what="policy"))
    wish = reader.held(path, body.wish)
    slot = body.slot or model
    if not is_name(slot):
        reader.document.refuse((*path, "slot"), "a slot is named [a-z0-9][a-z0-9._-]*")
    words = how(wish.plan, wish.policy, sealed=wish.sealed)
    return Wanted(model, version, slot, body.to, body.allow_downgrade, value, words)
