"""Hostile bundle directories: links, second names, pipes, sockets, folders without end."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from edgefleet_contract import bundle as b
from edgefleet_contract.directory import verify_directory
from edgefleet_contract.reasons import Reason
from tests.hostile.attempts import OPERATOR, Attempt, hostile
from tests.hostile.ground import Ground

MODEL = Path("onnx/model.onnx")


def replaced_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def listening(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as found:
            found.bind(path.name)
    finally:
        os.chdir(here)


def moved_and_linked(path: Path) -> None:
    aside = path.parents[1].parent / f"aside-{path.name}"
    path.rename(aside)
    path.symlink_to(aside)


def second_name(path: Path) -> None:
    os.link(path, path.parents[1].parent / f"again-{path.name}")


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


FILES: dict[str, Callable[[Path], None]] = {
    "a link to the honest file": moved_and_linked,
    "a link to /dev/zero": replaced_by(lambda path: path.symlink_to("/dev/zero")),
    "a link to /etc/passwd": replaced_by(lambda path: path.symlink_to("/etc/passwd")),
    "a link to itself": replaced_by(lambda path: path.symlink_to(path.name)),
    "a link to nothing": replaced_by(lambda path: path.symlink_to("nothing")),
    "a second name": second_name,
    "a pipe": replaced_by(os.mkfifo),
    "a socket": replaced_by(listening),
    "a folder": replaced_by(os.mkdir),
    "a flipped bit": flip,
    "a byte more": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "8 TiB of holes": lambda path: os.truncate(path, 2**43),
    "missing": os.unlink,
}


def many(folder: Path) -> None:
    for index in range(2_000):
        (folder / f"f{index}").write_bytes(b"")


def bottomless(folder: Path) -> None:
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1_500):
        os.mkdir("a", dir_fd=here)
        below = os.open("a", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def linked_folder(folder: Path) -> None:
    (folder / "onnx").rename(folder.parent / "elsewhere")
    (folder / "onnx").symlink_to(folder.parent / "elsewhere")


def named(name: bytes) -> Callable[[Path], object]:
    return lambda folder: os.close(
        os.open(os.fsencode(folder) + b"/" + name, os.O_CREAT | os.O_WRONLY)
    )


FOLDERS: dict[str, Callable[[Path], object]] = {
    "a hidden file": named(b".hidden"),
    "a library": named(b"onnx/model.so"),
    "a name that is no text": named(b"\xff\xfe"),
    "a name with codes": named(b"\x1b]0;mine\x07"),
    "a name with a newline": named(b"a\nb"),
    "another case": named(b"onnx/MODEL.onnx"),
    "a pipe beside": lambda folder: os.mkfifo(folder / "pipe"),
    "a link beside": lambda folder: (folder / "link").symlink_to("/etc"),
    "a loop of folders": lambda folder: (folder / "onnx" / "up").symlink_to(folder),
    "2,000 files": many,
    "1,500 folders in one another": bottomless,
    "its folder is a link": linked_folder,
}


_ALL = (
    *(Reason.BUNDLE_MISMATCH, Reason.DIGEST_MISMATCH),
    *(Reason.MALFORMED, Reason.BAD_SIGNATURE, Reason.TOO_LARGE),
)


@hostile(
    "directories", Reason.BUNDLE_MISMATCH, Reason.DIGEST_MISMATCH, Reason.MALFORMED, sample=200
)
def directories(ground: Ground) -> Iterator[Attempt]:
    """A directory in which something is not a plain file with one name, or is more or less."""

    def verified(damage: Callable[[Path], object], where: Path) -> object:
        folder = ground.copy()
        try:
            damage(folder / where)
            return verify_directory(folder, ground.ring).digest
        finally:
            subprocess.run(["rm", "-rf", folder.parent], check=True)

    for where in (MODEL, Path("onnx/golden.npz"), Path(b.MANIFEST), Path(b.SIGNATURE)):
        for name, damage in FILES.items():
            missing = name in ("missing", "a link to nothing", "a socket")
            yield Attempt(
                f"{where}: {name}",
                lambda damage=damage, where=where: verified(damage, where),
                expected=frozenset({*_ALL, OPERATOR}) if missing else frozenset(_ALL),
            )
    for name, change in FOLDERS.items():
        yield Attempt(name, lambda change=change: verified(change, Path()))
