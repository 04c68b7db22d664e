"""YAML read strictly, with the place of everything: the adapter of PyYAML.

What a declared file needs and no more: mappings with text keys, lists, texts, numbers, true, false
and null. Refused are keys that are there twice, anchors and aliases, tags, several documents, and
files of more than a MiB. A date stays the text that it is.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import yaml

from edgefleet_contract.errors import OperatorError

MAX_BYTES: Final = 2**20
_MAX_DEPTH: Final = 20
_TAG: Final = "tag:yaml.org,2002:"
_KINDS: Final = (  # those of YAML 1.2's core schema: 12:00 is a text, and so is `no`
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
)
_PLAIN: Final = frozenset(f"{_TAG}{kind}" for kind in ("str", *(kind for kind, _, _ in _KINDS)))
Path = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):  # type: ignore[misc] # it ships no types
    """PyYAML's safe loader, with the plain kinds of value alone."""


_Loader.yaml_implicit_resolvers = {}
for _kind, _pattern, _first in _KINDS:
    _letters = [*_first, ""] if _kind == "null" else list(_first)
    _Loader.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(f"(?:{_pattern})$"), _letters)


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says, and where it says it."""

    name: str
    value: Any
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def refuse(self, path: Path, why: str, *, hint: str = "") -> NoReturn:
        """Say that something in the file is wrong, and where.

        Raises:
            OperatorError: always.
        """
        at = path
        while at not in self.places and at:
            at = at[:-1]
        line, column = self.places.get(at, (1, 1))
        words = f"{dotted(path)}: {why}" if path else why
        raise OperatorError(f"{self.name}:{line}:{column}: {words}", hint=hint)


def dotted(path: Path) -> str:
    """`models.digits.waves[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read(text: str, *, name: str) -> Document:
    """The document in a text.

    Raises:
        OperatorError: it is not YAML, or more of YAML than is read here; with the place.
    """
    if len(text.encode()) > MAX_BYTES:
        raise OperatorError(f"{name}: more than {MAX_BYTES} bytes")
    loader = None
    try:
        loader = _Loader(text)
        if any(isinstance(event, yaml.AliasEvent) or _anchor(event) for event in _events(text)):
            raise OperatorError(f"{name}: anchors and aliases are not read here")
        node = loader.get_single_node()
        document = Document(name, None)
        value = _value(loader, node, document, ()) if node is not None else None
        return Document(name, value, document.places)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{mark.line + 1}:{mark.column + 1}" if mark is not None else "1:1"
        raise OperatorError(f"{name}:{at}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise OperatorError(f"{name}: not YAML: {str(error).splitlines()[0]}") from None
    finally:
        if loader is not None:
            loader.dispose()


def _events(text: str) -> Iterator[yaml.Event]:
    return iter(yaml.parse(text, Loader=_Loader))


def _anchor(event: yaml.Event) -> bool:
    return getattr(event, "anchor", None) is not None


def _value(loader: _Loader, node: yaml.Node, document: Document, path: Path) -> Any:
    document.places[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
    if len(path) > _MAX_DEPTH:
        document.refuse(path, "too deep")
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, document, (*path, i)) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        if node.tag not in _PLAIN:
            document.refuse(path, f"{node.tag.rpartition(':')[2]} is no kind of value here")
        return loader.construct_object(node)
    found: dict[str, Any] = {}
    for key_node, item in node.value:
        key: Hashable = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        if not isinstance(key, str) or not key:
            document.refuse(path, "a key is a text")
        here = (*path, key)
        document.places[here] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        if key in found:
            document.refuse(here, "is there twice")
        found[key] = _value(loader, item, document, here)
        document.places[here] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
    return found
