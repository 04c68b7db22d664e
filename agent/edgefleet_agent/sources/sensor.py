"""Sensors that Linux shows as files, a window of samples at a time: [1, samples, channels].

Industrial I/O (`/sys/bus/iio/devices/*/in_*_raw`), thermal zones and hwmon are all one number a
file. Beside a raw file of Industrial I/O stand its offset and scale, for the channel
(`in_accel_x_scale`) or for its kind (`in_accel_scale`); the value is (raw + offset) * scale.
[Linux, Documentation/ABI/testing/sysfs-bus-iio]
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edgefleet_agent.sources.options import SensorOptions
from edgefleet_agent.sources.plugin import Answer, Failure, Found, Item, Setup
from edgefleet_contract import codec
from edgefleet_contract.errors import OperatorError

IS_LIVE: Final = True
_RAW: Final = "_raw"
_SIGN_OF_LIFE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Channel:
    """A file, and what makes a quantity of its number."""

    path: Path
    offset: float
    scale: float

    def read(self) -> float:
        """The quantity now."""
        return (float(self.path.read_text()) + self.offset) * self.scale


def available() -> str:
    """Whether this board has any such file."""
    pattern = SensorOptions().files[0]
    return "" if matches(Path(pattern)) else f"no {pattern} on this board"


def open(setup: Setup) -> SensorSource:  # noqa: A001  # the word of the Protocol
    """The channels, found and read once.

    Raises:
        OperatorError: no file matches, or one holds no number.
    """
    options = codec.decode(SensorOptions, dict(setup.options), what=setup.name)
    base = setup.base.absolute()
    found = {path for pattern in options.files for path in matches(base / pattern)}
    if not found:
        raise OperatorError(
            f"{setup.name}: no file matches {', '.join(options.files)}",
            hint="list them with `ls`; is the sensor's driver loaded?",
        )
    try:
        channels = [channel(path, options.scale) for path in sorted(found)]
        for each in channels:
            each.read()
    except (OSError, ValueError) as error:
        raise OperatorError(f"{setup.name}: a sensor cannot be read: {error}") from None
    return SensorSource(channels, options, setup)


def matches(pattern: Path) -> set[Path]:
    """The files that an absolute pattern stands for."""
    return set(Path("/").glob(str(pattern.relative_to("/"))))


def channel(path: Path, scale: float) -> Channel:
    """A file with the offset and the scale that stand beside it."""
    if not path.name.endswith(_RAW):
        return Channel(path, 0.0, scale)
    beside = _beside(path, "scale")
    return Channel(
        path, _beside(path, "offset") or 0.0, scale * (1.0 if beside is None else beside)
    )


def _beside(path: Path, what: str) -> float | None:
    """The number of a channel's own file, or of its kind's."""
    stem = path.name.removesuffix(_RAW)
    for name in (stem, stem.rpartition("_")[0]):
        try:
            return float(path.with_name(f"{name}_{what}").read_text())
        except FileNotFoundError:
            continue
    return None


class SensorSource:
    """See above. Samples are `every_s` apart; one that comes too late is not made up for."""

    def __init__(self, channels: list[Channel], options: SensorOptions, setup: Setup) -> None:
        self._channels, self._options, self._setup = channels, options, setup
        self._names = ",".join(f"{each.path.parent.name}/{each.path.name}" for each in channels)

    def __iter__(self) -> Iterator[Found]:
        window: deque[list[float]] = deque(maxlen=self._options.window)
        due = said = time.monotonic()
        number = 0
        while True:
            window.append([each.read() for each in self._channels])
            number += 1
            fresh = number - self._options.window
            if fresh >= 0 and fresh % (self._options.stride or self._options.window) == 0:
                dtype = self._setup.describe().inputs[0].dtype
                tensor = np.array([window], np.float64).astype(dtype)
                yield Item(tensor, {"channels": self._names}, key=str(number))
            due = max(due + self._setup.every_s, time.monotonic())
            while (left := due - time.monotonic()) > 0:
                time.sleep(min(left, _SIGN_OF_LIFE_S))
                if time.monotonic() - said >= _SIGN_OF_LIFE_S:
                    said = time.monotonic()
                    yield None

    def settle(self, item: Item, outcome: Answer | Failure) -> None:
        """A window leaves nothing behind."""

    def close(self) -> None:
        """Files are open only while they are read."""
