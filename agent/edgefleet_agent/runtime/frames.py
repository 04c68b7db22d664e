"""Messages between the front and a worker, framed on a Unix stream socket.

A frame is a header of 16 bytes, little-endian (`u32` length of the body, `u64` id, `u16` code,
`u16` slot), and the body; with a slot above 0 the body lies there, in shared memory (`slots`), and
not in the stream. A request's code says what the body is (`Ask`); an answer's code is the HTTP
status that it means. A worker greets each connection with a frame of id 0.

Pure: bytes in, frames out. Both sides import it, so it imports little.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from edgefleet_agent.runtime.slots import Bytes

_HEADER: Final = struct.Struct("<IQHH")
_COPY: Final = struct.Struct("<HII")
_SIZE: Final = struct.Struct("<I")
_ALL: Final = 0xFFFFFFFF
_ALIGNED: Final = 16
MAX_BODY: Final = 256 * 1024 * 1024
GREETING: Final = 0


class Ask(IntEnum):
    """What a request asks for, and so what its body holds."""

    PREDICT_V1 = 1
    SHADOW = 2
    INFER_V2 = 3
    CLASSIFY_V1 = 4
    REGRESS_V1 = 5
    INFER_GRPC = 6


class BrokenFrame(Exception):
    """The other side does not speak frames (or speaks of one larger than any of ours)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message. `code` is an `Ask` on the way in and an HTTP status on the way out.

    A body in a slot is valid until the slot changes hands.
    """

    id: int
    code: int
    body: Bytes
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Copy:
    """The body of `Ask.SHADOW`: what was asked, and how it was answered within how many µs."""

    ask: Ask
    microseconds: int
    body: Bytes
    answer: Bytes


def pack_copy(copy: Copy) -> bytes:
    """The body of a frame."""
    head = _COPY.pack(copy.ask, min(copy.microseconds, 0xFFFFFFFF), len(copy.body))
    return b"".join((head, copy.body, copy.answer))


def unpack_copy(raw: Bytes) -> Copy:
    """What `pack_copy` was given."""
    ask, microseconds, size = _COPY.unpack_from(raw)
    end = _COPY.size + size
    return Copy(Ask(ask), microseconds, raw[_COPY.size : end], raw[end:])


def pack_opening(json_size: int | None) -> bytes:
    """What goes before the HTTP body of `Ask.INFER_V2`: how much of it is JSON; None: all.

    Zeros fill it up so that the tensors behind the JSON are aligned, and need not be moved.
    """
    if json_size is None:
        return _SIZE.pack(_ALL)
    return _SIZE.pack(json_size) + bytes(-(_SIZE.size + json_size) % _ALIGNED)


def unpack_opening(raw: Bytes) -> tuple[int, int | None]:
    """Where the HTTP body begins, and what `pack_opening` was given."""
    (size,) = _SIZE.unpack_from(raw)
    if size == _ALL:
        return _SIZE.size, None
    return _SIZE.size + -(_SIZE.size + size) % _ALIGNED, size


def pack_closing(json_size: int) -> bytes:
    """What goes before an answer to `Ask.INFER_V2`: how much of it is JSON; 0: all."""
    return _SIZE.pack(json_size)


def unpack_closing(raw: Bytes) -> tuple[memoryview, int]:
    """The HTTP body, not copied, and what `pack_closing` was given."""
    (size,) = _SIZE.unpack_from(raw)
    return memoryview(raw)[_SIZE.size :], size


def header(id: int, code: int, size: int, slot: int = 0) -> bytes:  # noqa: A002  # the field's name
    """The header of a body of `size` bytes, which follows, or lies in a slot."""
    return _HEADER.pack(size, id, code, slot)


class FrameReader:
    """Cuts a byte stream into frames, wherever its pieces happen to break.

    Law: the frames that come out do not depend on how the stream was cut.

    Args:
        find: the bytes of a size in a slot, None if there are none such.
    """

    def __init__(
        self, find: Callable[[int, int], memoryview | None] = lambda _slot, _size: None
    ) -> None:
        self._buffer = bytearray()
        self._find = find

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes.

        Raises:
            BrokenFrame: a header announces more than `MAX_BODY`, or a slot that is none.
        """
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            size, id_, code, slot = _HEADER.unpack_from(self._buffer)
            if slot:
                found = self._find(slot, size)
                if found is None:
                    raise BrokenFrame(f"{size} bytes in slot {slot}")
                del self._buffer[: _HEADER.size]
                yield Frame(id_, code, found, slot)
                continue
            if size > MAX_BODY:
                raise BrokenFrame(f"a frame of {size} bytes, at most {MAX_BODY} are read")
            end = _HEADER.size + size
            if len(self._buffer) < end:
                return
            with memoryview(self._buffer) as view:
                body = bytes(view[_HEADER.size : end])
            del self._buffer[:end]
            yield Frame(id_, code, body)
