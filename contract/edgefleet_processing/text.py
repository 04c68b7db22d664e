"""Text to numbers: normalising, splitting into words and word pieces, ids by a vocabulary, hashes.

Text is [N] of strings, one text a row. A vocabulary is a file with one token a line; the line's
number, from 0, is its id.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final, Literal

import numpy as np

from edgefleet_contract.errors import Malformed
from edgefleet_processing.errors import BadInput
from edgefleet_processing.settings import within
from edgefleet_processing.step import Run
from edgefleet_processing.tensors import Array, as_strings, lines, need_rank, need_room, texts
from edgefleet_processing.wordpiece import pieces

MAX_LENGTH: Final = 65536
MAX_TOKENS: Final = 1_000_000
MAX_CHARACTERS: Final = 1_000_000
_MAX_WORD: Final = 100
_MAX_MARKS: Final = 30
"""Combining marks in a row, as in the Stream-Safe Text Format (UAX 15, section 13): the time that
sorting them takes grows with the square."""


class Form(StrEnum):
    """Unicode normalisation forms (UAX 15), or none."""

    NONE = "none"
    NFC = "NFC"
    NFD = "NFD"
    NFKC = "NFKC"
    NFKD = "NFKD"


_FORMS: Final[dict[Form, Literal["NFC", "NFD", "NFKC", "NFKD"] | None]] = {
    Form.NONE: None,
    Form.NFC: "NFC",
    Form.NFD: "NFD",
    Form.NFKC: "NFKC",
    Form.NFKD: "NFKD",
}


@dataclass(frozen=True, slots=True)
class NormaliseText:
    """`lower`: to lower case; `form`; `accents`: False drops combining marks, after NFD."""

    lower: bool = True
    form: Form = Form.NFC
    accents: bool = True


def normalise_text(x: Array, to: NormaliseText) -> Array:
    """Strings of any shape -> strings of that shape: lower case, then accents, then the form."""
    return as_strings([_normalised(text, to) for text in bounded(x)], x.shape)


def _normalised(text: str, to: NormaliseText) -> str:
    _check_marks(text)
    if to.lower:
        text = text.lower()
    if not to.accents:
        split = unicodedata.normalize("NFD", text)
        text = "".join(c for c in split if unicodedata.category(c) != "Mn")
    form = _FORMS[to.form]
    return unicodedata.normalize(form, text) if form else text


def _check_marks(text: str) -> None:
    if text.isascii():
        return
    row = 0
    for c in text:
        row = row + 1 if unicodedata.combining(c) else 0
        if row > _MAX_MARKS:
            raise BadInput(f"takes {_MAX_MARKS} combining marks in a row at most")


class Ids(StrEnum):
    """The dtypes that ids have."""

    INT32 = "int32"
    INT64 = "int64"


@dataclass(frozen=True, slots=True)
class Words:
    """`length` of a row; the tokens of the vocabulary that stand for an unknown word, and for
    nothing at the end."""

    length: int
    unknown: str = "[UNK]"
    padding: str = "[PAD]"
    dtype: Ids = Ids.INT64

    def __post_init__(self) -> None:
        within(self.length, what="length", least=1, most=MAX_LENGTH)


def prepare_words(settings: Words, raw: bytes | None) -> Run:
    """[N] of strings -> ids [N, length], and a mask of the same dtype: 1 for a word, 0 for padding.

    A text is split at white space, and each punctuation mark is a word (`split_words`). What is
    longer than `length` is cut off.
    """
    ids = vocabulary(raw)
    unknown = id_of(ids, settings.unknown, "unknown")
    padding = id_of(ids, settings.padding, "padding")

    def encode(text: str) -> list[int]:
        return [ids.get(word, unknown) for word in islice(split_words(text), settings.length)]

    return _rows(encode, settings.length, padding, settings.dtype)


@dataclass(frozen=True, slots=True)
class WordPiece:
    """`length` of a row, with `start` and `end` (empty: none); `prefix` of a piece that goes on."""

    length: int
    start: str = "[CLS]"
    end: str = "[SEP]"
    unknown: str = "[UNK]"
    padding: str = "[PAD]"
    prefix: str = "##"
    dtype: Ids = Ids.INT64

    def __post_init__(self) -> None:
        within(self.length, what="length", least=1 + bool(self.start) + bool(self.end), most=65536)


def prepare_wordpiece(settings: WordPiece, raw: bytes | None) -> Run:
    """[N] of strings -> ids [N, length], and a mask of the same dtype: 1 for a token, else 0.

    Words as `words` splits them, each into the longest pieces of the vocabulary from the left, or
    the unknown token where that does not come out even, or for a word over 100 characters (BERT's
    WordPiece). What is too long is cut off before `end`.
    """
    ids = vocabulary(raw)
    unknown = id_of(ids, settings.unknown, "unknown")
    padding = id_of(ids, settings.padding, "padding")
    start = [id_of(ids, settings.start, "start")] if settings.start else []
    end = [id_of(ids, settings.end, "end")] if settings.end else []
    room = settings.length - len(start) - len(end)

    def encode(text: str) -> list[int]:
        found: list[int] = []
        for word in split_words(text):
            if len(found) >= room:
                break
            cut = pieces(word, ids, settings.prefix) if len(word) <= _MAX_WORD else None
            found += [unknown] if cut is None else cut
        return start + found[:room] + end

    return _rows(encode, settings.length, padding, settings.dtype)


def split_words(text: str) -> Iterator[str]:
    """The words of a text, in order: runs of what is neither white space nor punctuation nor a
    control character, and each punctuation mark alone.

    Punctuation is what Unicode calls so (categories P*) and every ASCII character that is neither
    letter, digit, space nor control; CJK ideographs (U+3400 to U+9FFF, U+F900 to U+FAFF, U+20000 to
    U+2FA1F) are words of their own, as in BERT. Control and format characters and U+FFFD are
    dropped.
    """
    word: list[str] = []
    for c in text:
        kind = _kind(c)
        if kind == "drop":
            continue
        if kind == "letter":
            word.append(c)
            continue
        if word:
            yield "".join(word)
            word.clear()
        if kind == "alone":
            yield c
    if word:
        yield "".join(word)


def vocabulary(raw: bytes | None) -> dict[str, int]:
    """The ids of the tokens of a vocabulary file.

    Raises:
        Malformed: no file, not UTF-8, or a token that stands twice.
    """
    assert raw is not None  # the step says that it must have a file
    found = lines(raw, most=MAX_TOKENS)
    ids = {token: i for i, token in enumerate(found)}
    if len(ids) != len(found):
        raise Malformed("its vocabulary has a token twice")
    return ids


def id_of(ids: dict[str, int], token: str, what: str) -> int:
    """The id of a token that the vocabulary must have."""
    if token not in ids:
        raise Malformed(f"its vocabulary has no {token[:40]!r}, which is {what!r}")
    return ids[token]


def bounded(x: Array) -> list[str]:
    """The texts of a tensor, which all together have no more characters than are read."""
    found = texts(x)
    if sum(map(len, found)) > MAX_CHARACTERS:
        raise BadInput(f"takes {MAX_CHARACTERS} characters at most")
    return found


def _kind(c: str) -> str:
    """`letter`, `space`, `alone` or `drop`."""
    if c.isalnum() and c < "\u3400":
        return "letter"
    category = unicodedata.category(c)
    if c in "\t\n\r" or category[0] == "Z":
        return "space"
    if category[0] == "C" or c == "\ufffd":
        return "drop"
    code = ord(c)
    is_ideograph = (
        0x3400 <= code <= 0x9FFF and not 0x4DC0 <= code <= 0x4DFF
    ) or 0xF900 <= code <= 0xFAFF
    if category[0] == "P" or c.isascii() or is_ideograph or 0x20000 <= code <= 0x2FA1F:
        return "alone"
    return "letter"


def _rows(encode: Callable[[str], list[int]], length: int, padding: int, dtype: Ids) -> Run:
    def run(taken: tuple[Array, ...]) -> tuple[Array, ...]:
        need_rank(taken[0], 1, "N")
        need_room((len(taken[0]), length), 8)
        ids = np.full((len(taken[0]), length), padding, dtype.value)
        mask = np.zeros_like(ids)
        for row, text in enumerate(bounded(taken[0])):
            found = encode(text)[:length]
            ids[row, : len(found)] = found
            mask[row, : len(found)] = 1
        return ids, mask

    return run
