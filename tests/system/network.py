"""Bad networks: two network namespaces, joined by a link that does to packets what it is told.

Each end is a TUN device; a thread carries packets (of IPv4) from one to the other, late, twice,
spoilt, in another order, or never. Namespaces and devices are held by file descriptors alone, so
nothing is left when the process ends. Needs root and /dev/net/tun; no other program.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import itertools
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import pytest

FLEET, DEVICE = "198.51.100.1", "198.51.100.2"  # of RFC 5737, for documentation
MTU: Final = 1400
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET: Final = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFDSTADDR, _SIOCSIFMTU = 0x8914, 0x8916, 0x8918, 0x8922
_IFF_UP: Final = 1
_TCP: Final = 6


def require_namespaces() -> None:
    """Fail in CI, skip elsewhere, where networks cannot be made."""
    try:
        with Namespace() as own, own.entered(), open_tun():
            return
    except OSError as error:
        words = f"no network namespaces here (they need root and /dev/net/tun): {error}"
    if os.environ.get("CI"):
        pytest.fail(words)
    pytest.skip(words)


def _call(name: str, *arguments: int) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


class Namespace:
    """A network of its own, with a loopback device; gone when closed and nobody is in it."""

    def __init__(self) -> None:
        with self._kept():
            _call("unshare", _CLONE_NEWNET)
            self._fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            _configure("lo")

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and the processes that it starts, are in the namespace."""
        with self._kept():
            _call("setns", self._fd, _CLONE_NEWNET)
            yield

    @staticmethod
    @contextmanager
    def _kept() -> Iterator[None]:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            yield
        finally:
            _call("setns", before, _CLONE_NEWNET)
            os.close(before)


@contextmanager
def open_tun() -> Iterator[int]:
    """A TUN device in the namespace that this thread is in."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"link", _IFF_TUN | _IFF_NO_PI))
        yield fd
    finally:
        os.close(fd)


def _configure(device: str, own: str = "", peer: str = "") -> None:
    """Addresses of both ends and the MTU, where given; then up."""
    name = device.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for request, address in ((_SIOCSIFADDR, own), (_SIOCSIFDSTADDR, peer)):
            if address:
                packed = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
                fcntl.ioctl(sock, request, struct.pack("16s16s8x", name, packed))
        if own:
            fcntl.ioctl(sock, _SIOCSIFMTU, struct.pack("16si20x", name, MTU))
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh22x", name, _IFF_UP))


@dataclass(frozen=True)
class Weather:
    """What a link does to packets, in each direction.

    `delay_s` and `jitter_s` in seconds; `loss`, `duplicate`, `reorder` and `corrupt` are shares of
    the packets (a reordered one comes `late_s` later; of a corrupt one a bit is flipped); `rate` in
    bits a second, 0 for no limit, with a queue of `queue_s` before it. `up_s` and `down_s` make it
    flap. `is_cut` loses everything in silence; `blocked` are TCP ports that are shut.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    late_s: float = 0.05
    corrupt: float = 0.0
    rate: float = 0.0
    queue_s: float = 2.0
    up_s: float = 0.0
    down_s: float = 0.0
    is_cut: bool = False
    blocked: frozenset[int] = frozenset()


FAIR: Final = Weather()


@dataclass
class _End:
    """One TUN device: what was sent into the link here, and when its line is free again."""

    fd: int
    sent_bytes: int = 0
    packets: int = 0
    free_at: float = 0.0


@dataclass
class Link:
    """`with Link(fleet, device) as link: link.weather = Weather(loss=0.3)`."""

    fleet: Namespace
    device: Namespace
    weather: Weather = FAIR
    lost: int = 0
    _ends: list[_End] = field(default_factory=list)
    _forgotten: set[bytes] = field(default_factory=set)
    _flows: set[bytes] = field(default_factory=set)
    _random: random.Random = field(default_factory=lambda: random.Random(7))
    _opened: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _ending: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Link:
        for namespace, own, peer in ((self.fleet, FLEET, DEVICE), (self.device, DEVICE, FLEET)):
            with namespace.entered():
                self._ends.append(_End(self._opened.enter_context(open_tun())))
                _configure("link", own, peer)
        self._thread = threading.Thread(target=self._carry, name="link")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        self._opened.close()

    @property
    def to_device_bytes(self) -> int:
        """What the fleet's side has put on the link, lost or not, with all headers."""
        return self._ends[0].sent_bytes

    def forget(self) -> None:
        """As a router that lost its table: connections that exist are dead, new ones are not."""
        self._forgotten = set(self._flows)

    def _carry(self) -> None:
        other = dict(zip(self._ends_fds(), reversed(self._ends_fds()), strict=True))
        ends = {end.fd: end for end in self._ends}
        queue: list[tuple[float, int, int, bytes]] = []
        order = itertools.count()
        while not self._ending.is_set():
            wait = min(0.1, max(0.0, queue[0][0] - time.monotonic())) if queue else 0.1
            for fd in select.select(list(other), [], [], wait)[0]:
                while (packet := _read(fd)) is not None:
                    if packet[0] >> 4 != 4:  # IPv6 looks around for routers
                        continue
                    ends[fd].sent_bytes += len(packet)
                    ends[fd].packets += 1
                    for due, what in self._fate(ends[fd], packet):
                        heapq.heappush(queue, (due, next(order), other[fd], what))
            now = time.monotonic()
            while queue and queue[0][0] <= now:
                _, _, fd, packet = heapq.heappop(queue)
                with contextlib.suppress(OSError):  # what a device does not take is lost
                    os.write(fd, packet)

    def _ends_fds(self) -> list[int]:
        return [end.fd for end in self._ends]

    def _fate(self, end: _End, packet: bytes) -> list[tuple[float, bytes]]:
        """When a packet arrives, and as what; nothing where it is lost."""
        weather, now, chance = self.weather, time.monotonic(), self._random.random
        start = max(now, end.free_at)
        if self._is_stopped(weather, packet, now) or chance() < weather.loss:
            self.lost += 1
            return []
        if weather.rate:
            if start - now > weather.queue_s:
                self.lost += 1
                return []
            start = end.free_at = start + len(packet) * 8 / weather.rate
        due = start + weather.delay_s + chance() * weather.jitter_s
        if chance() < weather.reorder:
            due += weather.late_s
        if chance() < weather.corrupt:
            packet = self._spoil(packet)
        copies = 2 if chance() < weather.duplicate else 1
        return [(due, packet)] * copies

    def _is_stopped(self, weather: Weather, packet: bytes, now: float) -> bool:
        flow, ports = _tcp(packet)
        if flow:
            self._flows.add(flow)
        period = weather.up_s + weather.down_s
        is_down = bool(period) and now % period >= weather.up_s
        return weather.is_cut or is_down or bool(ports & weather.blocked) or flow in self._forgotten

    def _spoil(self, packet: bytes) -> bytes:
        raw = bytearray(packet)
        raw[self._random.randrange(len(raw))] ^= 1 << self._random.randrange(8)
        return bytes(raw)


def _read(fd: int) -> bytes | None:
    try:
        return os.read(fd, 2048)
    except BlockingIOError:
        return None


def _tcp(packet: bytes) -> tuple[bytes, frozenset[int]]:
    """The flow (the same in both directions) and the ports of a TCP packet."""
    size = (packet[0] & 15) * 4
    if packet[9] != _TCP or len(packet) < size + 4:
        return b"", frozenset()
    ends = sorted(
        packet[12 + 4 * i : 16 + 4 * i] + packet[size + 2 * i : size + 2 * i + 2] for i in (0, 1)
    )
    return b"".join(ends), frozenset(struct.unpack("!HH", packet[size : size + 4]))
