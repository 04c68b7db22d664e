"""Text to counts of hashed words: no vocabulary, no state (Weinberger et al. 2009).

As scikit-learn's `HashingVectorizer` with its own token pattern: words are runs of two or more word
characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

import numpy as np

from edgefleet_contract.errors import Malformed
from edgefleet_processing.settings import within
from edgefleet_processing.step import Run
from edgefleet_processing.tensors import Array, need_rank, need_room
from edgefleet_processing.text import bounded

MAX_FEATURES: Final = 1 << 20
_WORD: Final = re.compile(r"\b\w\w+\b")
_MASK: Final = 0xFFFFFFFF
_MAX_KNOWN: Final = 64
"""Longer words are not remembered: strangers send them."""


class Length(StrEnum):
    """What a row is divided by: nothing, the sum of its magnitudes, or its Euclidean length."""

    NONE = "none"
    L1 = "l1"
    L2 = "l2"


@dataclass(frozen=True, slots=True)
class HashWords:
    """`features`: how many columns; `lower`: lower case first; `signs`: half of the words count
    down; `shortest` to `longest`: how many words in a row are one feature, joined by a space."""

    features: int
    lower: bool = True
    signs: bool = True
    norm: Length = Length.L2
    shortest: int = 1
    longest: int = 1

    def __post_init__(self) -> None:
        within(self.features, what="features", least=1, most=MAX_FEATURES)
        within(self.longest, what="longest", least=1, most=5)
        within(self.shortest, what="shortest", least=1, most=self.longest)


def prepare_hash_words(settings: HashWords, raw: bytes | None) -> Run:
    """[N] of strings -> float32 [N, features]: how often each hash occurs.

    With h the MurmurHash3 (x86, 32 bits, seed 0) of a word's UTF-8, signed, it counts in column
    |h| mod `features`, by -1 if h < 0 and `signs`, else by 1.
    """
    if raw is not None:
        raise Malformed("takes no file")

    def run(taken: tuple[Array, ...]) -> tuple[Array, ...]:
        need_rank(taken[0], 1, "N")
        need_room((len(taken[0]), settings.features), 8)
        found = np.zeros((len(taken[0]), settings.features))
        for row, text in enumerate(bounded(taken[0])):
            for word in _grams(text.lower() if settings.lower else text, settings):
                h = _known(word) if len(word) <= _MAX_KNOWN else signed_hash(word)
                found[row, abs(h) % settings.features] += -1.0 if h < 0 and settings.signs else 1.0
        if settings.norm is not Length.NONE:
            order = 1 if settings.norm is Length.L1 else 2
            sizes = np.linalg.norm(found, order, axis=1, keepdims=True)
            found /= np.where(sizes == 0.0, 1.0, sizes)
        return (found.astype(np.float32),)

    return run


def _grams(text: str, settings: HashWords) -> Iterator[str]:
    words = _WORD.findall(text)
    for count in range(settings.shortest, settings.longest + 1):
        for i in range(len(words) - count + 1):
            yield " ".join(words[i : i + count])


def signed_hash(word: str) -> int:
    """MurmurHash3_x86_32 of a word's UTF-8 with seed 0, as a signed integer (Appleby 2011)."""
    raw = word.encode("utf-8", "surrogatepass")
    h = 0
    whole = len(raw) // 4 * 4
    for at in range(0, whole, 4):
        h ^= _scrambled(int.from_bytes(raw[at : at + 4], "little"))
        h = (_rotated(h, 13) * 5 + 0xE6546B64) & _MASK
    h ^= _scrambled(int.from_bytes(raw[whole:], "little"))  # 0 scrambles to 0
    h ^= len(raw)
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & _MASK
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & _MASK
    h ^= h >> 16
    return h - (1 << 32) if h >> 31 else h


_known: Final = lru_cache(maxsize=16384)(signed_hash)


def _scrambled(k: int) -> int:
    return (_rotated((k * 0xCC9E2D51) & _MASK, 15) * 0x1B873593) & _MASK


def _rotated(x: int, by: int) -> int:
    return ((x << by) | (x >> (32 - by))) & _MASK
