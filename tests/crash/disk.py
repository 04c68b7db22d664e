"""What a disk may hold after a power cut, given the calls that were made before it.

The model is that of Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014), as far as
a program may rely on it:

- bytes that were written may be there, in part, as zeros, or not at all, until the file was
  fsynced;
- names that were made, changed or removed may be so or not, until their folder was fsynced; a name
  changes in one step. `POSIX` promises no order among them and takes a rename between two folders
  for two changes; `JOURNAL` (ext4, data=ordered) keeps their order, and any fsync brings all;
- what was fsynced stays.

A disk is a mapping of paths to bytes (None: a folder). Core: values in, values out.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

ROOT: Final = 0
"""The number of the folder that everything is in; it is there."""
MOST: Final = 48
"""Above so many combinations of one kind, these are tried: none, all, prefixes, all but one, and
some at random (with a fixed seed)."""

Disk: TypeAlias = dict[str, bytes | None]


class Model(StrEnum):
    """What a file system promises about names."""

    POSIX = "posix"
    JOURNAL = "journal"


@dataclass(frozen=True, slots=True)
class Linked:
    """A name was given to a file or a folder."""

    folder: int
    name: str
    node: int


@dataclass(frozen=True, slots=True)
class Unlinked:
    """A name was removed."""

    folder: int
    name: str


@dataclass(frozen=True, slots=True)
class Moved:
    """A name was changed, in one step, taking the place of what had it."""

    source: Unlinked
    target: Linked


@dataclass(frozen=True, slots=True)
class Wrote:
    """Bytes were written into a file."""

    node: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """A file was cut to a size."""

    node: int
    size: int


@dataclass(frozen=True, slots=True)
class Synced:
    """A file or a folder was fsynced; `site` says by whom."""

    node: int
    site: str


@dataclass(frozen=True, slots=True)
class Mark:
    """The program told its caller something: from here on, that must hold."""

    word: str
    value: object


Change: TypeAlias = Linked | Unlinked | Moved
Call: TypeAlias = Change | Wrote | Cut | Synced | Mark


@dataclass(frozen=True, slots=True)
class Base:
    """What is on the disk for good at the start: every node's names, or bytes."""

    folders: Mapping[int, Mapping[str, int]]
    files: Mapping[int, bytes]


def disks(base: Base, calls: Sequence[Call], model: Model) -> Iterator[Disk]:
    """Every disk (up to `MOST`) that a cut right after the last of these calls may leave."""
    folders, pending = _names(base, calls, model)
    data = [_contents(base.files.get(node, b""), calls, node) for node in _written(base, calls)]
    for kept in _subsets(pending, ordered=model is Model.JOURNAL):
        tree = {number: dict(names) for number, names in folders.items()}
        for change in kept:
            _apply(tree, change)
        for files in _combinations(data):
            yield _walk(tree, dict(files))


def _names(
    base: Base, calls: Sequence[Call], model: Model
) -> tuple[dict[int, dict[str, int]], list[Change]]:
    """The names that are on the disk for good, and the changes that may be."""
    folders = {number: dict(names) for number, names in base.folders.items()}
    done: list[tuple[Change, bool]] = []
    for call in calls:
        match call:
            case Linked() | Unlinked():
                done.append((call, False))
            case Moved(source, target) if model is Model.POSIX and source.folder != target.folder:
                done += [(target, False), (source, False)]
            case Moved():
                done.append((call, False))
            case Synced(node):
                done = [
                    (change, good or model is Model.JOURNAL or _folder(change) == node)
                    for change, good in done
                ]
    for change, good in done:
        if good:
            _apply(folders, change)
    return folders, [change for change, good in done if not good]


def _folder(change: Change) -> int:
    return change.target.folder if isinstance(change, Moved) else change.folder


def _apply(folders: dict[int, dict[str, int]], change: Change) -> None:
    match change:
        case Linked(folder, name, node):
            folders.setdefault(folder, {})[name] = node
        case Unlinked(folder, name):
            folders.setdefault(folder, {}).pop(name, None)
        case Moved(source, target):
            _apply(folders, source)
            _apply(folders, target)


def _written(base: Base, calls: Sequence[Call]) -> list[int]:
    fresh = (call.node for call in calls if isinstance(call, Wrote | Cut))
    return list(dict.fromkeys([*base.files, *fresh]))


def _contents(first: bytes, calls: Sequence[Call], node: int) -> list[tuple[int, bytes]]:
    """What a file may hold."""
    sure, unsure = first, list[Wrote | Cut]()
    for call in calls:
        if isinstance(call, Wrote | Cut) and call.node == node:
            unsure.append(call)
        elif isinstance(call, Synced) and call.node == node:
            sure, unsure = _fill(sure, unsure), []
    found = [sure]
    whole = _fill(sure, unsure)
    for index, call in enumerate(unsure):
        before = _fill(sure, unsure[:index])
        found.append(before)
        if isinstance(call, Wrote):
            found += [
                _fill(before, [Wrote(node, call.offset, call.data[:torn])])
                for torn in (1, len(call.data) // 2, len(call.data) - 1)
            ]
            hole = bytes(len(call.data))  # the length came to the disk, the bytes did not
            found.append(_fill(before, [Wrote(node, call.offset, hole)]))
            found.append(_fill(whole, [Wrote(node, call.offset, hole)]))
    if unsure:
        found += [whole, bytes(len(whole))]
    return [(node, raw) for raw in dict.fromkeys(found)]


def _fill(raw: bytes, calls: Sequence[Wrote | Cut]) -> bytes:
    found = bytearray(raw)
    for call in calls:
        size = call.size if isinstance(call, Cut) else max(len(found), call.offset)
        found = found[:size] + bytes(max(0, size - len(found)))
        if isinstance(call, Wrote):
            found[call.offset : call.offset + len(call.data)] = call.data
    return bytes(found)


def _subsets(changes: list[Change], *, ordered: bool) -> Iterator[list[Change]]:
    prefixes = [changes[:count] for count in range(len(changes) + 1)]
    if ordered:
        yield from prefixes
        return
    if 2 ** len(changes) <= MOST:
        for choice in itertools.product((False, True), repeat=len(changes)):
            yield list(itertools.compress(changes, choice))
        return
    yield from prefixes
    yield from (changes[:index] + changes[index + 1 :] for index in range(len(changes) - 1))
    yield from ([change] for change in changes[1:])
    dice = random.Random(len(changes))
    for _ in range(MOST):
        yield [change for change in changes if dice.random() < 0.5]


def _combinations(data: list[list[tuple[int, bytes]]]) -> Iterator[tuple[tuple[int, bytes], ...]]:
    count = 1
    for variants in data:
        count *= len(variants)
    if count <= MOST:
        yield from itertools.product(*data)
        return
    firsts, lasts = [v[0] for v in data], [v[-1] for v in data]
    for index, variants in enumerate(data):
        for variant in variants:
            for others in (firsts, lasts):
                yield (*others[:index], variant, *others[index + 1 :])


def _walk(
    tree: Mapping[int, Mapping[str, int]], files: Mapping[int, bytes], *, at: int = ROOT
) -> Disk:
    found: Disk = {}
    for name, node in tree.get(at, {}).items():
        if node in tree:
            found[name] = None
            found |= {f"{name}/{path}": raw for path, raw in _walk(tree, files, at=node).items()}
        else:
            found[name] = files.get(node, b"")
    return found
