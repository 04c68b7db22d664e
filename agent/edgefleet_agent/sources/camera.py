"""Frames of a camera (V4L2), or of a video file, in the size and layout that the model takes.

By OpenCV, which a device needs for nothing else: `edgefleet[camera]`. Frames are fetched at the
camera's own pace and thrown away until the next is due, so that the one that is asked is fresh.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from edgefleet_agent.client.files import image_layout, scaled
from edgefleet_agent.client.messages import Metadata
from edgefleet_agent.runtime.engine import Array
from edgefleet_agent.sources.options import CameraOptions
from edgefleet_agent.sources.plugin import Answer, Failure, Found, Item, Setup
from edgefleet_contract import codec
from edgefleet_contract.errors import OperatorError

IS_LIVE: Final = True


def available() -> str:
    """OpenCV is there, or what to install."""
    try:
        import cv2  # noqa: F401  # whether it can be imported is the question
    except ImportError as error:
        return f"{error}: pip install 'edgefleet[camera]'"
    return ""


def open(setup: Setup) -> CameraSource:  # noqa: A001  # the word of the Protocol
    """The camera, opened.

    Raises:
        OperatorError: there is no OpenCV, no such camera, or it may not be used.
    """
    if why := available():
        raise OperatorError(f"{setup.name}: {why}")
    import cv2

    options = codec.decode(CameraOptions, dict(setup.options), what=setup.name)
    is_file = not options.device.startswith("/dev/")
    where = str(setup.base / options.device) if is_file else options.device
    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(where) if is_file else cv2.VideoCapture(where, cv2.CAP_V4L2)
    if not capture.isOpened():
        raise OperatorError(
            f"{setup.name}: {where} cannot be opened as a camera or a video",
            hint="is it there, and may the agent use it? (group video; PrivateDevices=)",
        )
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return CameraSource(capture, options, setup, is_file=is_file)


class CameraSource:
    """See above. A video file ends; a camera that gives no frame any more ends the process."""

    def __init__(
        self, capture: Any, options: CameraOptions, setup: Setup, *, is_file: bool
    ) -> None:
        self._capture, self._options, self._setup = capture, options, setup
        self._is_file = is_file

    def __iter__(self) -> Iterator[Found]:
        number, due = 0, time.monotonic()
        while self._capture.grab():
            if not self._is_file and time.monotonic() < due:
                yield None
                continue
            is_good, frame = self._capture.retrieve()
            if is_good:
                # The model may be another one by now, and want another size.
                tensor = to_input(frame, self._setup.describe(), self._options.scale)
                yield Item(tensor, {"frame": str(number)}, key=str(number))
            number += 1
            due = max(due + self._setup.every_s, time.monotonic())
            while self._is_file and (left := due - time.monotonic()) > 0:
                time.sleep(min(left, 1.0))
                yield None
        if not self._is_file:
            raise OSError(f"{self._options.device} gives no frames any more")

    def settle(self, item: Item, outcome: Answer | Failure) -> None:
        """A frame leaves nothing behind."""

    def close(self) -> None:
        """Let the camera go."""
        self._capture.release()


def to_input(frame: Array, model: Metadata, scale: float | None) -> Array:
    """A frame of OpenCV ([H, W, 3], BGR) as the only input of a model, an image.

    Raises:
        OperatorError: the model takes something else.
    """
    import cv2

    if len(model.inputs) != 1:
        raise OperatorError(f"{model.name} takes {len(model.inputs)} inputs, a frame is one")
    spec = model.inputs[0]
    height, width, channels, is_last = image_layout(spec)
    codes = {1: cv2.COLOR_BGR2GRAY, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGR2RGBA}
    size = (frame.shape[1] if width == -1 else width, frame.shape[0] if height == -1 else height)
    if (frame.shape[1], frame.shape[0]) != size:
        is_smaller = size[0] < frame.shape[1]
        how = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
        frame = cv2.resize(frame, size, interpolation=how)
    frame = cv2.cvtColor(frame, codes[channels]).reshape(1, size[1], size[0], channels)
    return scaled(frame if is_last else frame.transpose(0, 3, 1, 2), spec, scale)
