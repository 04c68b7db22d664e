"""What is in a ZIP that may be a model: told by the names of its members and two of its texts.

PyTorch, Keras and skops all save ZIPs. Nothing is unpacked to the disk and nothing is unpickled: of
a pickle the names that it would import are read. A ZIP that says it unpacks to more than a model
can be, or that a reader of ZIPs stumbles over, is refused.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError

MAX_MEMBERS: Final = 100_000
MAX_BYTES: Final = 8 * 2**30  # unpacked, all members
MAX_RATIO: Final = 1100  # deflate reaches 1032
MAX_TEXT: Final = 64 * 2**20

_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, OSError, EOFError),
    *(ValueError, NotImplementedError, RuntimeError, IndexError, KeyError, OverflowError),
)
_TENSORS = re.compile(
    r"torch\._utils\._rebuild_\w+|torch\.(storage\.)?\w+Storage|torch\.(Size|device)"
    r"|torch\.b?float\d*|torch\.u?int\d+|collections\.OrderedDict"
)


@dataclass(frozen=True, slots=True)
class Archive:
    """The names in a ZIP, without the folder that PyTorch puts around them."""

    path: Path
    names: frozenset[str]

    def text(self, name: str) -> str:
        """A member as text.

        Raises:
            OperatorError: it is damaged, or larger than any text of a model.
        """
        with _opened(self.path) as archive, archive.open(name) as member:
            raw = member.read(MAX_TEXT + 1)
            if len(raw) > MAX_TEXT:
                raise OperatorError(f"{self.path}: {name} has more than {MAX_TEXT >> 20} MiB")
            return raw.decode("utf-8")

    def ends(self, *tails: str) -> str | None:
        """The first member at the top, or one folder below it, whose name is one of these."""
        for name in sorted(self.names):
            inner = name.partition("/")[2]
            if name in tails or inner in tails:
                return name
        return None


def look_into(path: Path) -> Archive:
    """What a ZIP holds.

    Raises:
        OperatorError: it is damaged, or would unpack to more than a model can be.
    """
    with _opened(path) as archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise OperatorError(f"{path} holds {len(members)} files: more than {MAX_MEMBERS}")
        size = sum(member.file_size for member in members)
        packed = max(1, path.stat().st_size)
        if size > MAX_BYTES or size > MAX_RATIO * packed:
            raise OperatorError(
                f"{path} has {packed} bytes and would unpack to {size}: more than a model needs",
                hint=f"at most {MAX_BYTES >> 30} GiB, and {MAX_RATIO} times the file",
            )
        return Archive(path, frozenset(member.filename for member in members))


def holds_tensors_alone(archive: Archive, pickled: str) -> bool:
    """Whether a pickle of PyTorch is tensors by name, and no module: told by what it imports."""
    with _opened(archive.path) as opened, opened.open(pickled) as member:
        return _is_tensors(member.read(MAX_TEXT))


def exported_code(archive: Archive) -> str | None:
    """The first member of a `torch.export` file that torch would unpickle as any object, if any.

    Plain weights are raw numbers. Sample inputs and the weights of older files are `torch.save`d,
    and torch falls back to a full unpickling of those; objects of other kinds are pickles.
    """
    with _opened(archive.path) as opened:
        for name in sorted(archive.names):
            last = name.rpartition("/")[2]
            if "opaque_obj" in last or "custom_obj" in last:
                return name
            if last.endswith("_config.json") and _says_pickle(archive.text(name)):
                return name
            if last.endswith(".pt") and not _is_saved_tensors(opened, name):
                return name
    return None


def _says_pickle(text: str) -> bool:
    """Whether a list of weights or constants has one that is pickled, or cannot be read."""
    try:
        entries = json.loads(text)["config"].values()
        return any(entry.get("use_pickle", True) is not False for entry in entries)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return True


def _is_saved_tensors(opened: zipfile.ZipFile, name: str) -> bool:
    if opened.getinfo(name).file_size == 0:
        return True
    with opened.open(name) as member:
        raw = member.read(MAX_TEXT + 1)
    if len(raw) > MAX_TEXT:
        return False
    with zipfile.ZipFile(io.BytesIO(raw)) as inner:
        pickles = [one for one in inner.namelist() if one.endswith(".pkl")]
        return len(pickles) == 1 and _is_tensors(inner.open(pickles[0]).read(MAX_TEXT))


def _is_tensors(raw: bytes) -> bool:
    return all(_TENSORS.fullmatch(name) for name in _imports(raw))


def keras_code(config: Json) -> str | None:
    """The first layer of a Keras configuration that is code of its author, by class name.

    A `Lambda` holds Python bytecode; a class outside of Keras is looked up by import.
    """
    stack = [config]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, dict):
            name, module = value.get("class_name"), value.get("module")
            if name in ("Lambda", "__lambda__"):
                return str(name)
            if isinstance(name, str) and isinstance(module, str) and not _is_keras(module):
                return f"{module}.{name}"
            stack.extend(value.values())
    return None


def refuse_keras_code(text: str, source: str) -> None:
    """Refuse a Keras configuration with code in it.

    Raises:
        OperatorError: it has, or it is not JSON.
    """
    try:
        found = keras_code(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise OperatorError(f"{source}: its configuration is not JSON ({error})") from None
    if found is not None:
        raise OperatorError(
            f"{source} holds code of its author ({found}), and loading it would run that",
            hint="build it with layers of Keras alone, or export it: model.export('folder')",
        )


def _is_keras(module: str) -> bool:
    return module == "builtins" or module.partition(".")[0] in ("keras", "tf_keras", "tensorflow")


def _imports(raw: bytes) -> Iterator[str]:
    """The names that a pickle imports, `module.name`; nothing is imported."""
    texts: list[str] = []
    try:
        for opcode, value, _ in pickletools.genops(io.BytesIO(raw)):
            if opcode.name == "GLOBAL":
                yield str(value).replace(" ", ".")
            elif opcode.name == "STACK_GLOBAL":
                yield ".".join(texts[-2:])
            elif isinstance(value, str):
                texts.append(value)
    except Exception:  # noqa: BLE001 - bytes of others: whatever does not parse is no state dict
        yield "?"


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _BROKEN as error:
        raise OperatorError(
            f"{path} is a damaged ZIP ({str(error)[:200] or type(error).__name__})",
            hint="it may be truncated: compare its size with the original",
        ) from None
