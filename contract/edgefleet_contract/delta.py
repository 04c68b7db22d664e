"""A delta: how to make a new file from an old one. The format, and the reader of its head.

A delta is `edgefleet.delta/1`, a head in canonical JSON, and streams packed with Zstandard
[bundle-8]. Nobody signs it: a file that was made from one is what its SHA-256 says, or it is
dropped. So nothing here is believed, and everything has a bound. Operations say how long they are,
not where they write: they follow one another, so that they cannot overlap or leave a gap.

What runs the operations is `delta_reader`. What finds them lies in the fleet. The streams are
unpacked by a Zstandard library that the caller hands in: the contract needs none.

Law: `parse_head(render_head(head))` gives `head` and the length of its bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final, TypeAlias

from edgefleet_contract import canonical, codec
from edgefleet_contract.bundle import MAX_FILE_SIZE, Digest, is_digest
from edgefleet_contract.errors import Malformed
from edgefleet_contract.lanes import Layout

MAGIC: Final = b"edgefleet.delta/1\n"
MAX_HEAD: Final = 256 * 1024
MAX_OPERATIONS: Final = 20_000
MAX_PREFIX_SUM: Final = 32 * 1000 * 1000
"""What old and new may have together, bytes, where the old file is a prefix: it is in memory."""
MIN_PREFIX: Final = 8
WINDOW_LOG: Final = 23
"""The window of a whole file: 8 MiB."""
PLANE_WINDOW_LOG: Final = 21
"""The window of each of the streams that are read side by side: 2 MiB."""
WORTH: Final = 0.8
"""A delta is given out below this share of the new file's size."""
WHOLE: Final = "whole"
LITERAL: Final = "literal"
_PREAMBLE: Final = len(MAGIC) + 4
_LAYOUTS: Final = frozenset(Layout)

ReadAt: TypeAlias = Callable[[int, int], bytes]
"""Called with an offset and a length: the bytes there, fewer where the file ends."""


class Kind(StrEnum):
    """How the new file is packed."""

    ZSTD = "zstd"
    PREFIX = "zstd-prefix"
    TENSOR = "tensor"


class Code(IntEnum):
    """What an operation makes its bytes from."""

    COPY = 0
    """The bytes of the old file."""
    SUB = 1
    """Those, and differences by lanes (`lanes.add`)."""
    XOR = 2
    """Those, and the bits that differ."""
    NEW = 3
    """Streams alone."""


@dataclass(frozen=True, slots=True)
class Operation:
    """The next `size` bytes of the new file.

    `at` is where they are read in the old file, `layout` how their streams hold them. A NEW has no
    `at`, a COPY no streams.
    """

    code: Code
    at: int
    size: int
    layout: Layout = Layout.BYTES

    def __post_init__(self) -> None:
        if self.at < 0 or self.size < 1 or self.size % self.layout.planes:
            raise Malformed(f"delta: {self.code.name} of {self.size} bytes at {self.at}")

    def streams(self) -> tuple[str, ...]:
        """The names of the streams that it takes an equal share of its bytes from."""
        if self.code is Code.COPY:
            return ()
        if self.code is Code.NEW and self.layout is Layout.BYTES:
            return (LITERAL,)
        return tuple(f"{self.layout.value}.{plane}" for plane in range(self.layout.planes))


@dataclass(frozen=True, slots=True)
class Head:
    """What a delta says about itself. `packed` is the size of each stream, by name.

    The streams follow the head in the order of their names. `operations` is empty but in TENSOR.
    """

    kind: Kind
    old: Digest
    old_size: int
    new: Digest
    new_size: int
    packed: dict[str, int]
    operations: tuple[Operation, ...] = ()

    def __post_init__(self) -> None:
        for digest, size in ((self.old, self.old_size), (self.new, self.new_size)):
            if not is_digest(digest) or not 0 <= size <= MAX_FILE_SIZE:
                raise Malformed(f"delta: a file of {size} bytes, {digest[:16]!r}")
        if self.kind is Kind.PREFIX and not can_be_prefix(self.old_size, self.new_size):
            raise Malformed(f"delta: {self.old_size} bytes cannot be a prefix of {self.new_size}")
        if any(size < 1 for size in self.packed.values()) or set(self.packed) != set(self.raw()):
            raise Malformed("delta: other streams than its operations need")

    def raw(self) -> dict[str, int]:
        """The size of each stream once it is unpacked, by name.

        Raises:
            Malformed: the operations do not make the new file.
        """
        if self.kind is not Kind.TENSOR:
            if self.operations:
                raise Malformed(f"delta: {self.kind} has operations")
            return {WHOLE: self.new_size}
        if len(self.operations) > MAX_OPERATIONS:
            raise Malformed(f"delta: {len(self.operations)} operations")
        sizes: Counter[str] = Counter()
        made = 0
        for one in self.operations:
            made += one.size
            if one.code is not Code.NEW and one.at + one.size > self.old_size:
                raise Malformed(f"delta: reads {one.size} at {one.at} of {self.old_size}")
            for name in one.streams():
                sizes[name] += one.size // one.layout.planes
        if made != self.new_size:
            raise Malformed(f"delta: its operations make {made} of {self.new_size} bytes")
        return dict(sizes)


def can_be_prefix(old_size: int, new_size: int) -> bool:
    """Whether an old file is short enough to be held in memory, and long enough for Zstandard."""
    return old_size >= MIN_PREFIX and old_size + new_size < MAX_PREFIX_SUM


@dataclass(frozen=True, slots=True)
class _Document:
    """The head as it is written: each operation a list, `at` counted from where the last ended."""

    kind: Kind
    old: Digest
    old_size: int
    new: Digest
    new_size: int
    packed: dict[str, int]
    operations: tuple[tuple[int, ...], ...]


def render_head(head: Head) -> bytes:
    """Magic, length and JSON of a head.

    Raises:
        Malformed: it would be longer than a reader takes.
    """
    rows: list[tuple[int, ...]] = []
    end = 0
    for one in head.operations:
        if one.code is Code.NEW:
            rows.append((one.code.value, one.size, one.layout.value))
            continue
        row = (one.code.value, one.at - end, one.size)
        rows.append(row if one.code is Code.COPY else (*row, one.layout.value))
        end = one.at + one.size
    written = _Document(
        *(head.kind, head.old, head.old_size, head.new, head.new_size, head.packed, tuple(rows))
    )
    raw = canonical.render(codec.encode(written))
    if len(raw) > MAX_HEAD:
        raise Malformed(f"delta: a head of {len(raw)} bytes")
    return MAGIC + len(raw).to_bytes(4, "big") + raw


def parse_head(read_at: ReadAt) -> tuple[Head, int]:
    """The head of a delta, and where its streams begin.

    Raises:
        Malformed: it is not one, or breaks a bound.
    """
    preamble = read_at(0, _PREAMBLE)
    if len(preamble) != _PREAMBLE or not preamble.startswith(MAGIC):
        raise Malformed(f"delta: begins with {preamble[:20]!r}")
    size = int.from_bytes(preamble[len(MAGIC) :], "big")
    if size > MAX_HEAD:
        raise Malformed(f"delta: a head of {size} bytes, at most {MAX_HEAD} are read")
    raw = read_at(_PREAMBLE, size)
    if len(raw) != size:
        raise Malformed(f"delta: {len(raw)} of the {size} bytes of its head")
    told = codec.decode(_Document, canonical.parse(raw, what="delta"), what="delta")
    head = Head(
        *(told.kind, told.old, told.old_size, told.new, told.new_size, told.packed),
        _operations(told.operations),
    )
    return head, _PREAMBLE + size


def _operations(rows: tuple[tuple[int, ...], ...]) -> tuple[Operation, ...]:
    found, end = [], 0
    for row in rows:
        match row:
            case (Code.NEW, size, layout) if layout in _LAYOUTS:
                found.append(Operation(Code.NEW, 0, size, Layout(layout)))
                continue
            case (Code.COPY, skip, size):
                found.append(Operation(Code.COPY, end + skip, size))
            case ((Code.SUB | Code.XOR) as code, skip, size, layout) if layout in _LAYOUTS:
                found.append(Operation(Code(code), end + skip, size, Layout(layout)))
            case _:
                raise Malformed(f"delta: there is no operation {list(row[:4])}")
        end = found[-1].at + size
    return tuple(found)
