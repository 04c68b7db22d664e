"""Which reader a file, a folder or a name of data needs, and its task in a worker process.

Arrays in files (`.npy`, `.npz`) are read where they are wanted. All else is decoded in a process of
its own, under the limits of the recipe, and comes back as such a file.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from edgefleet_contract import codec
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import write_npz
from edgefleet_converter.digests import describe
from edgefleet_converter.readers import audio, images, tables
from edgefleet_converter.readers.folder import list_files, read_files
from edgefleet_converter.readers.generators import NAME, read_generator
from edgefleet_converter.readers.wish import Audio, Images, Table


class Form(StrEnum):
    """What data comes as."""

    ARRAYS = "arrays"
    IMAGES = "images"
    AUDIO = "audio"
    CSV = "csv"
    PARQUET = "parquet"
    GENERATOR = "generator"


def form_of(path: Path, *, what: str) -> Form:
    """What the data at a path is, by its content; of files in a folder, the first one's suffix.

    Raises:
        OperatorError: it cannot be read, or is nothing that is known here.
    """
    if path.is_dir():
        return _form_of_folder(path, what)
    if not path.exists() and NAME.fullmatch(path.name):
        return Form.GENERATOR
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise OperatorError(f"cannot read the {what} data {path}: {error.strerror}") from None
    if head.startswith(tables.PARQUET):
        return Form.PARQUET
    is_text = path.suffix.lower() == ".csv" or (
        b"," in head and head.isascii() and b"\0" not in head
    )
    return Form.CSV if is_text and not head.startswith((b"\x93NUMPY", b"PK")) else Form.ARRAYS


def _form_of_folder(path: Path, what: str) -> Form:
    files, _ = list_files(path)
    suffix = files[0].suffix.lower()
    if suffix in images.SUFFIXES:
        return Form.IMAGES
    if suffix in audio.SUFFIXES:
        return Form.AUDIO
    raise OperatorError(
        f"the {what} data {path}: {files[0].name} is neither a picture nor a WAV file",
        hint=f"{', '.join((*images.SUFFIXES, *audio.SUFFIXES))} come in",
    )


def read(*, path: str, form: str, wish: dict[str, Json]) -> dict[str, Json]:
    """`examples.npz`: the arrays in the data; its digest and size. A worker task."""
    place, kind = Path(path), Form(form)
    if kind is Form.IMAGES:
        images_wish = codec.decode(Images, wish["images"], what="data.images")
        found = read_files(place, images.image_reader(images_wish))
    elif kind is Form.AUDIO:
        audio_wish = codec.decode(Audio, wish["audio"], what="data.audio")
        found = read_files(place, audio.audio_reader(audio_wish))
    elif kind is Form.GENERATOR:
        found = read_generator(place)
    else:
        table = codec.decode(Table, wish["table"], what="data.table")
        reader = tables.read_csv if kind is Form.CSV else tables.read_parquet
        found = reader(place, table)
    write_npz(Path("examples.npz"), found)
    described = describe(Path("examples.npz") if kind is Form.GENERATOR else place)
    return {"sha256": str(described.sha256), "size": described.size}
