"""Which shelf a control room has: the one its configuration names, else a folder of its own."""

from __future__ import annotations

from edgefleet_fleet.adapters.file_shelf import FileShelf
from edgefleet_fleet.adapters.s3_shelf import S3Shelf
from edgefleet_fleet.config import Config
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.ports import Shelf


def open_shelf(config: Config, data: DataDir) -> Shelf:
    """The shelf, ready.

    Raises:
        OperatorError: it cannot be reached, or the folder not made.
    """
    shelf = S3Shelf(config.shelf) if config.shelf else FileShelf(data.blobs)
    shelf.prepare()
    return shelf
