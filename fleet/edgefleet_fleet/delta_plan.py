"""How to make a new file from an old one: which operations, over which bytes.

Tensors are paired by name, then by size and order. What lies between them, and files without
tensors, is cut into blocks at places that the content itself chooses, so that blocks that moved are
found again. Bytes that differ from those at the place where they are expected are coded by what
packs a sample of them best: differences, bits that differ, or the new bytes alone.

Law: the operations make the new file, whatever the plan thinks of it: `pack` is told old and new
and writes what is missing.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from edgefleet_contract import lanes
from edgefleet_contract.delta import Code, Operation
from edgefleet_contract.lanes import Layout
from edgefleet_fleet.tensor_spans import Span, tensor_spans

Cost: TypeAlias = Callable[[bytes], int]
"""About how many bytes these would pack into."""

PIECE: Final = 64 * 1024
_SAMPLES: Final = 3
_BLOCKS: Final = 200_000
_SMALLEST_BLOCK: Final = 64
_SMALLEST_CODED: Final = 64
_LAYOUTS: Final = {
    1: (Layout.BYTES, Layout.CRUMBS),
    2: (Layout.PAIRS,),
    4: (Layout.QUADS,),
    8: (Layout.OCTETS,),
}
"""How numbers of so many bytes may be taken apart."""
_FILLED: Final = 512
"""Equal bytes of up to this many between two tensors are taken as differences of zero."""


@dataclass(frozen=True, slots=True)
class _Region:
    """Bytes `start` to `end` of the new file; those at `at` of the old one may be like them.

    `items` are the widths of numbers that they may be.
    """

    start: int
    end: int
    at: int | None
    items: tuple[int, ...] = (1,)


def plan(old: memoryview, new: memoryview, cost: Cost) -> tuple[Operation, ...]:
    """The operations that make `new` from `old`."""
    chosen = [_choose(old, new, region, cost) for region in _regions(old, new)]
    return tuple(_join(_fill(chosen)))


def _regions(old: memoryview, new: memoryview) -> Iterator[_Region]:
    blocks = _Blocks(old, len(old) + len(new))
    done = expected = 0
    for span, at in _pairs(tensor_spans(old), tensor_spans(new)):
        for region in blocks.find(new, done, span.start, expected):
            yield region
            expected = _after(region, expected)
        if at is None:
            yield _Region(span.start, span.end, None, (span.item, 1))
        else:
            size = min(at.end - at.start, span.end - span.start) // span.item * span.item
            yield _Region(span.start, span.start + size, at.start, (span.item,))
            if span.start + size < span.end:
                yield _Region(span.start + size, span.end, None, (span.item, 1))
            expected = at.end
        done = span.end
    yield from blocks.find(new, done, len(new), expected)


def _after(region: _Region, expected: int) -> int:
    return expected if region.at is None else region.at + region.end - region.start


def _pairs(old: tuple[Span, ...], new: tuple[Span, ...]) -> Iterator[tuple[Span, Span | None]]:
    """Each new span, and the old one that it most likely comes from."""
    named = {(span.name, span.item): span for span in old}
    names = {(span.name, span.item) for span in new}
    rest: dict[tuple[int, int], deque[Span]] = defaultdict(deque)
    for span in old:
        if (span.name, span.item) not in names:
            rest[span.item, span.end - span.start].append(span)
    for span in new:
        found = named.get((span.name, span.item))
        if found is None and (same := rest[span.item, span.end - span.start]):
            found = same.popleft()
        yield span, found


class _Blocks:
    """The blocks of the old file, by content."""

    def __init__(self, old: memoryview, total: int) -> None:
        self._old = old
        least = max(_SMALLEST_BLOCK, total // _BLOCKS)
        # A block ends after two bytes of certain low bits: numbers and text both have them.
        first, second = (
            b"".join(b"\\x%02x" % byte for byte in range(low, 256, 8)) for low in (3, 5)
        )
        self._block = re.compile(
            b"(?s).{%d,%d}?(?:[%s][%s]|\\Z)|.{%d}|.+"
            % (least, 16 * least, first, second, 16 * least)
        )
        self._known: dict[bytes, int] = {}
        self._is_cut = False

    def find(self, new: memoryview, start: int, end: int, expected: int) -> Iterator[_Region]:
        """What of a part of the new file is in the old one, and what lies between."""
        if end - start <= len(self._old) - expected and self._same(new, start, end, expected):
            yield from [_Region(start, end, expected)] if start < end else []
            return
        self._cut()
        done = start
        for match in self._block.finditer(new[start:end]):
            first, last = start + match.start(), start + match.end()
            at = self._known.get(match[0])
            if first < done or at is None:
                continue
            back = self._alike_before(new, first, done, at)
            ahead = self._alike_after(new, last, end, at + last - first)
            yield from self._between(done, first - back, expected)
            yield _Region(first - back, last + ahead, at - back)
            done, expected = last + ahead, at + last - first + ahead
        yield from self._between(done, end, expected)

    def _between(self, start: int, end: int, expected: int) -> Iterator[_Region]:
        if start == end:
            return
        fits = expected + end - start <= len(self._old)
        items = (4, 1) if end - start >= PIECE and (end - start) % 4 == 0 else (1,)
        yield _Region(start, end, expected if fits else None, items)

    def _cut(self) -> None:
        if not self._is_cut:
            for match in self._block.finditer(self._old):
                self._known.setdefault(match[0], match.start())
        self._is_cut = True

    def _same(self, new: memoryview, start: int, end: int, at: int) -> bool:
        return self._alike_after(new, start, end, at) == end - start

    def _alike_after(self, new: memoryview, start: int, end: int, at: int) -> int:
        size = min(end - start, len(self._old) - at)
        return _alike(size, lambda i, n: new[start + i : start + n] == self._old[at + i : at + n])

    def _alike_before(self, new: memoryview, start: int, least: int, at: int) -> int:
        size = min(start - least, at)
        return _alike(size, lambda i, n: new[start - n : start - i] == self._old[at - n : at - i])


def _alike(size: int, same: Callable[[int, int], bool]) -> int:
    """How many steps, of at most `size`, are the same; `same` says it of a range of them."""
    done, step = 0, 64
    while done < size:
        step = min(step, size - done)
        if same(done, done + step):
            done, step = done + step, min(2 * step, PIECE)
        elif step == 1:
            break
        else:
            step //= 2
    return done


def _choose(old: memoryview, new: memoryview, region: _Region, cost: Cost) -> Operation:
    size, at = region.end - region.start, region.at
    if at is not None and _equal(old, new, region):
        return Operation(Code.COPY, at, size)
    if size < _SMALLEST_CODED:
        return Operation(Code.NEW, 0, size)
    found = [Operation(Code.NEW, 0, size)]
    for layout in [layout for item in region.items for layout in _LAYOUTS[item]]:
        if size % layout.planes == 0:
            found.append(Operation(Code.NEW, 0, size, layout))
            if at is not None:
                found += [Operation(code, at, size, layout) for code in (Code.SUB, Code.XOR)]
    return min(found, key=lambda one: _sample_cost(old, new, region.start, one, cost))


def _equal(old: memoryview, new: memoryview, region: _Region) -> bool:
    assert region.at is not None
    shift = region.at - region.start
    for at in range(region.start, region.end, PIECE):
        end = min(at + PIECE, region.end)
        if bytes(new[at:end]) != bytes(old[at + shift : end + shift]):
            return False
    return True


def _sample_cost(
    old: memoryview, new: memoryview, start: int, one: Operation, cost: Cost
) -> tuple[int, int]:
    """The cost of some pieces; of equal ones, the operation with fewer planes."""
    step = max(PIECE, (one.size - PIECE) // max(1, _SAMPLES - 1) // 8 * 8)
    total = 0
    for skip in list(range(0, one.size, step))[:_SAMPLES]:
        piece = replace(one, at=one.at + skip, size=min(PIECE, one.size - skip))
        total += sum(cost(plane) for plane in planes(old, new, start + skip, piece))
    return total, one.layout.planes


def planes(old: memoryview, new: memoryview, start: int, one: Operation) -> list[bytes]:
    """What the streams of an operation hold, where it makes the new file from `start` on."""
    raw = bytes(new[start : start + one.size])
    if one.code is Code.COPY:
        return []
    if one.code is Code.SUB:
        raw = lanes.subtract(raw, bytes(old[one.at : one.at + one.size]), one.layout.item)
    elif one.code is Code.XOR:
        raw = lanes.xor(raw, bytes(old[one.at : one.at + one.size]))
    return lanes.split(raw, one.layout)


def _fill(chosen: list[Operation]) -> Iterator[Operation]:
    """Short copies between like operations are made a part of them: a head is not packed."""
    for number, one in enumerate(chosen):
        before = chosen[number - 1] if number else None
        after = chosen[number + 1] if number + 1 < len(chosen) else None
        if (
            one.code is Code.COPY
            and one.size <= _FILLED
            and before is not None
            and after is not None
            and (before.code, before.layout) == (after.code, after.layout)
            and before.code in (Code.SUB, Code.XOR)
            and (before.at + before.size, one.at + one.size) == (one.at, after.at)
            and one.size % before.layout.planes == 0
        ):
            yield Operation(before.code, one.at, one.size, before.layout)
        else:
            yield one


def _can_join(one: Operation, after: Operation) -> bool:
    follows = one.code is Code.NEW or one.at + one.size == after.at
    return follows and (one.code, one.layout) == (after.code, after.layout)


def _join(chosen: Iterator[Operation]) -> Iterator[Operation]:
    """Neighbours that can be one operation are."""
    held: Operation | None = None
    for one in chosen:
        if held is None:
            held = one
        elif _can_join(held, one):
            held = replace(held, size=held.size + one.size)
        else:
            yield held
            held = one
    if held is not None:
        yield held
