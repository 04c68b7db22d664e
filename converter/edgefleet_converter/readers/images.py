"""Pictures in, as uint8 [H, W, C]: upright, in one mode, of one size if that is wished.

Scaling to what the model takes is a step of the recipe, which devices do as well.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Array
from edgefleet_converter.readers.wish import Images

MAX_PIXELS: Final = 64_000_000
SUFFIXES: Final = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def image_reader(wish: Images) -> Callable[[Path], Array]:
    """What reads one picture."""
    from PIL import Image, ImageOps

    def read(path: Path) -> Array:
        try:
            with Image.open(path) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise OperatorError(
                        f"{path} has {opened.width} by {opened.height} pixels: more than "
                        f"{MAX_PIXELS // 10**6} million"
                    )
                picture = ImageOps.exif_transpose(opened).convert(wish.mode)
        except OperatorError:
            raise
        except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged pictures
            raise OperatorError(f"{path} is no picture that can be read: {error}") from None
        if wish.size:
            height, width = wish.size
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        array = np.asarray(picture, np.uint8)
        return array if array.ndim == 3 else array[:, :, None]

    return read
