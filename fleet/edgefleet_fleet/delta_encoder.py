"""Packs the delta from one file to another: `python -m edgefleet_fleet.delta_encoder OLD NEW OUT`.

Tries the new file alone, with the old one as a prefix, and by tensors (`delta_plan`); the smallest
is kept, if it is worth it. What is kept was unpacked once and compared. Runs in a process of its
own, since it takes all of one core and some hundred megabytes for a while.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from backports import zstd

from edgefleet_contract import delta as d
from edgefleet_contract.bundle import Digest
from edgefleet_contract.delta import Code, Head, Kind, Operation
from edgefleet_contract.delta_reader import rebuild
from edgefleet_contract.errors import Malformed
from edgefleet_fleet.delta_plan import PIECE, plan, planes

NOT_WORTH_IT: Final = 3
"""How `main` exits where there is no delta below the share of the new file that is worth it."""
_BEST_LEVEL: Final = 19
_LARGE_LEVEL: Final = 9
_LARGE: Final = 64 * 1024 * 1024
"""From this size on, the best level would take minutes."""
_WINDOW_LOGS: Final = {d.WHOLE: d.WINDOW_LOG, d.LITERAL: d.PLANE_WINDOW_LOG}
_PLANE_WINDOW_LOG: Final = 18
"""256 KiB: planes hardly repeat themselves, and a reader has many windows open at once."""
_QUICK_LEVEL: Final = 3
_HOPELESS: Final = 0.75
"""What the best level makes of the size at the quick one, at most."""


def encode(old: memoryview, new: memoryview, out: BinaryIO) -> bool:
    """Write the smallest delta from `old` to `new`; False, and nothing, where none is worth it."""
    limit = d.WORTH * len(new)
    best: tuple[int, Head, dict[str, BinaryIO]] | None = None
    with ExitStack() as stack:
        for kind in (Kind.TENSOR, Kind.PREFIX, Kind.ZSTD):
            made = _pack(kind, old, new, limit, stack)
            if made is not None:
                size = len(d.render_head(made[0])) + sum(made[0].packed.values())
                if size < limit:
                    limit, best = size, (size, *made)
        if best is None:
            return False
        _, head, streams = best
        out.write(d.render_head(head))
        for name in sorted(streams):
            streams[name].seek(0)
            while piece := streams[name].read(PIECE):
                out.write(piece)
    return True


def _pack(
    kind: Kind, old: memoryview, new: memoryview, limit: float, stack: ExitStack
) -> tuple[Head, dict[str, BinaryIO]] | None:
    """The head and the packed streams of one kind; None where it cannot be or is hopeless."""
    operations: tuple[Operation, ...] = ()
    prefix = None
    if kind is Kind.TENSOR:
        operations = plan(old, new, lambda raw: len(zstd.compress(raw, _QUICK_LEVEL)))
    elif kind is Kind.PREFIX:
        if not d.can_be_prefix(len(old), len(new)):
            return None
        prefix = zstd.ZstdDict(bytes(old), is_raw=True).as_prefix
    elif _quick_size(new) * _HOPELESS > limit:
        return None
    files = (_sha256(old), len(old), _sha256(new), len(new))
    try:
        # Sizes of 1 stand in for those to come, so that the operations are judged first.
        names = Head(kind, *files, dict.fromkeys(_names(kind, operations), 1), operations).raw()
    except Malformed:
        return None  # more operations than a reader takes
    level = _BEST_LEVEL if len(new) < _LARGE else _LARGE_LEVEL
    streams = {
        name: _Packer(raw, level, _WINDOW_LOGS.get(name, _PLANE_WINDOW_LOG), prefix, stack)
        for name, raw in names.items()
    }
    if kind is Kind.TENSOR:
        _feed(old, new, operations, streams)
    else:
        for at in range(0, len(new), PIECE):
            streams[d.WHOLE].take(bytes(new[at : at + PIECE]))
    packed = {name: stream.finish() for name, stream in streams.items()}
    head = Head(kind, *files, packed, operations)
    try:
        d.render_head(head)
    except Malformed:
        return None
    return head, {name: stream.file for name, stream in streams.items()}


def _names(kind: Kind, operations: tuple[Operation, ...]) -> set[str]:
    if kind is not Kind.TENSOR:
        return {d.WHOLE}
    return {name for one in operations for name in one.streams()}


def _feed(
    old: memoryview, new: memoryview, operations: tuple[Operation, ...], streams: dict[str, _Packer]
) -> None:
    start = 0
    for one in operations:
        names = one.streams()
        for skip in range(0, one.size if names else 0, PIECE):
            at = 0 if one.code is Code.NEW else one.at + skip
            piece = Operation(one.code, at, min(PIECE, one.size - skip), one.layout)
            for name, plane in zip(names, planes(old, new, start + skip, piece), strict=True):
                streams[name].take(plane)
        start += one.size


class _Packer:
    """One stream, packed into a temporary file."""

    def __init__(
        self, raw: int, level: int, window_log: int, prefix: Any, stack: ExitStack
    ) -> None:
        options: dict[int, int] = {
            zstd.CompressionParameter.compression_level: level,
            zstd.CompressionParameter.window_log: window_log,
        }
        self._packer = zstd.ZstdCompressor(options=options, zstd_dict=prefix)
        self._packer.set_pledged_input_size(raw)
        self.file: BinaryIO = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it

    def take(self, raw: bytes) -> None:
        """Pack these."""
        self.file.write(self._packer.compress(raw))

    def finish(self) -> int:
        """The size of the stream, packed."""
        self.file.write(self._packer.flush(zstd.ZstdCompressor.FLUSH_FRAME))
        return self.file.tell()


def _quick_size(new: memoryview) -> int:
    packer = zstd.ZstdCompressor(_QUICK_LEVEL)
    size = sum(
        len(packer.compress(bytes(new[at : at + PIECE]))) for at in range(0, len(new), PIECE)
    )
    return size + len(packer.flush())


def check(old: memoryview, new: memoryview, delta: BinaryIO) -> None:
    """Nothing, if the delta makes `new` of `old`.

    Raises:
        Malformed: it does not.
    """

    def read_at(offset: int, size: int) -> bytes:
        return os.pread(delta.fileno(), size, offset)

    rebuild(
        zstd,
        delta=read_at,
        delta_size=os.fstat(delta.fileno()).st_size,
        old=lambda offset, size: bytes(old[offset : offset + size]),
        old_digest=_sha256(old),
        new_digest=_sha256(new),
        new_size=len(new),
        write=len,
    )


def _sha256(raw: memoryview) -> Digest:
    return Digest(hashlib.sha256(raw).hexdigest())


@contextmanager
def _mapped(path: str) -> Iterator[memoryview]:
    with Path(path).open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            yield memoryview(b"")
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            view = memoryview(mapped)
            try:
                yield view
            finally:
                view.release()


def main(argv: list[str]) -> int:
    """The exit status: 0 where OUT was written."""
    os.nice(19)
    with _mapped(argv[0]) as old, _mapped(argv[1]) as new, Path(argv[2]).open("w+b") as out:
        if not encode(old, new, out):
            return NOT_WORTH_IT
        out.flush()
        check(old, new, out)
        os.fsync(out.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
