"""What the kinds that are built in may be told, beside what every source and sink is told.

Without NumPy: the agent reads these before it starts anything, so that a wrong key is said at
once. A plug-in judges its own options, in its own process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edgefleet_contract.errors import Malformed


@dataclass(frozen=True, slots=True)
class FolderOptions:
    """`path` is watched (relative: below the state folder); `scale` divides an image's values."""

    path: str = "inbox"
    scale: float | None = None


@dataclass(frozen=True, slots=True)
class SyntheticOptions:
    """Numbers from `seed`; `count` items, 0: without end."""

    seed: int = 0
    count: int = 0


@dataclass(frozen=True, slots=True)
class CameraOptions:
    """`device` is a V4L2 device or a video file; `scale` divides the values of a frame."""

    device: str = "/dev/video0"
    scale: float | None = None


@dataclass(frozen=True, slots=True)
class SensorOptions:
    """`files` are patterns, and each file that matches is a channel, in the order of their names.

    A window has `window` samples; `stride` of them are new (0: all). `scale` multiplies what is
    read, after the scale and offset that stand beside a raw file of the Industrial I/O subsystem.
    """

    files: tuple[str, ...] = ("/sys/bus/iio/devices/*/in_*_raw",)
    window: int = 128
    stride: int = 0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.files or self.window < 1 or not 0 <= self.stride <= self.window:
            raise Malformed(
                f"window {self.window}, stride {self.stride}, {len(self.files)} patterns of files",
                hint="a window of 1 or more samples, of which 1 to all are new, of 1 or more files",
            )


@dataclass(frozen=True, slots=True)
class MqttSourceOptions:
    """Requests of at most `max_bytes`, at most `per_s` a second. [wire-10.5]"""

    max_bytes: int = 256 * 1024
    per_s: float = 10.0

    def __post_init__(self) -> None:
        if self.max_bytes < 1 or self.per_s <= 0:
            raise Malformed(
                f"max_bytes {self.max_bytes}, per_s {self.per_s:g}", hint="both are above 0"
            )


@dataclass(frozen=True, slots=True)
class MqttSinkOptions:
    """`queue` results wait while the broker is away; `retain`: the broker keeps the last one."""

    queue: int = 100
    retain: bool = False

    def __post_init__(self) -> None:
        if self.queue < 1:
            raise Malformed(f"queue {self.queue}", hint="1 or more")


@dataclass(frozen=True, slots=True)
class FolderSinkOptions:
    """A JSON file for each result in `path`, the newest `keep` of them."""

    path: str = "results"
    keep: int = 1000

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise Malformed(f"keep {self.keep}", hint="1 or more")


@dataclass(frozen=True, slots=True)
class LogSinkOptions:
    """There is nothing to choose."""


SOURCES: Final[dict[str, type]] = {
    "camera": CameraOptions,
    "folder": FolderOptions,
    "mqtt": MqttSourceOptions,
    "sensor": SensorOptions,
    "synthetic": SyntheticOptions,
}
SINKS: Final[dict[str, type]] = {
    "folder": FolderSinkOptions,
    "log": LogSinkOptions,
    "mqtt": MqttSinkOptions,
}
