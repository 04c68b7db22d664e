"""Inputs that stand in for examples, so that golden vectors are nobody's data [recipe-18]. Pure.

Numbers are drawn from what many examples have in common: the mean of a class, and around it the
spread that all examples have around the means of theirs. Words and whole numbers that name things
are those that ten examples share. What ten examples do not share is drawn by chance alone. A fixed
seed gives the same again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet_converter.arrays import Array, Arrays

LEAST: Final = 10
"""So many examples have a part in everything that is told of them, as in the drift reference."""
MEMBERS: Final = 256
MOST_WORDS: Final = 200
ANY: Final = -1
_SEED: Final = 0
_PIECES: Final = 16
_MOST_VALUES: Final = 1 << 25  # of the examples that are added up, of an input: 256 MiB as float64
_COARSE: Final = 4
_GRID: Final = 12  # binary digits of the range that a number keeps: processors add up alike then

Floats = NDArray[np.float64]


def stand_ins(inputs: Arrays, *, count: int, classes: NDArray[np.int64] | None) -> Arrays:
    """So many rows for each input: what examples of it could be.

    Args:
        inputs: examples, each [N, …], row i of all belonging together.
        count: how many rows are wanted.
        classes: of each example, [N], if it is known; every other row is of a class, in turns.
    """
    size = len(inputs[0])
    rng = np.random.default_rng(_SEED)
    widest = max(int(np.prod(array.shape[1:])) for array in inputs)
    most = max(LEAST, min(MEMBERS, _MOST_VALUES // max(widest, 1)))
    members = np.sort(rng.permutation(size)[:most])
    parts = rng.normal(size=(count, len(members)))
    parts /= np.linalg.norm(parts, axis=1, keepdims=True)
    return tuple(
        _like(array, _turns(classes, size, count), members, parts, rng) for array in inputs
    )


def windows(inputs: Arrays, *, count: int) -> Arrays:
    """So many calls of a sequence: pieces of the sequences that there are, added up.

    Each piece begins somewhere else; within it calls keep their order. So what follows from what,
    such as the pitch of a sound, stays what it is.

    Args:
        inputs: calls in their order, each [T, …].
        count: how many calls are wanted.
    """
    size = len(inputs[0])
    rng = np.random.default_rng(_SEED)
    begins = rng.integers(0, size, _PIECES)
    parts = rng.normal(size=_PIECES)
    parts /= np.linalg.norm(parts)
    rows = (begins[:, None] + np.arange(count)) % size
    found = []
    for array in inputs:
        if size < LEAST or not _are_numbers(array):
            of_any = _turns(None, size, count)
            found.append(_like(array, of_any, np.arange(size), np.zeros((count, size)), rng))
            continue
        flat = array.reshape(size, -1).astype(np.float64)
        mean = flat.mean(axis=0)
        mixed = np.tile(mean, (count, 1))
        for part, piece in zip(parts, rows, strict=True):
            mixed += part * (flat[piece] - mean)
        found.append(_settled(mixed, array))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Turns:
    """The class of each example, [N], and of each row that is wanted; `ANY` where it is none that
    ten examples have."""

    groups: NDArray[np.int64]
    wanted: NDArray[np.int64]


def _turns(classes: NDArray[np.int64] | None, size: int, count: int) -> Turns:
    """Every other row is of a class, the others of any."""
    groups = np.full(size, ANY, np.int64)
    wanted = np.full(count, ANY, np.int64)
    if classes is not None:
        named, times = np.unique(classes, return_counts=True)
        common = named[times >= LEAST]
        groups = np.where(np.isin(classes, common), classes, ANY)
        if len(common):
            wanted[::2] = np.resize(common, len(wanted[::2]))
    return Turns(groups, wanted)


def _like(
    array: Array,
    turns: Turns,
    members: NDArray[np.int64],
    parts: Floats,
    rng: np.random.Generator,
) -> Array:
    if array.dtype.kind in "OU":
        return _texts(array, turns, rng)
    if not _are_numbers(array):
        return _named(array, len(parts), rng)
    if len(array) < LEAST:
        return _by_chance(array, len(parts), rng)
    flat = array.reshape(len(array), -1)
    overall = flat.mean(axis=0, dtype=np.float64)
    own = flat[members].astype(np.float64)
    mixed = overall + parts @ (own - overall)
    named = [name for name in np.unique(turns.groups).tolist() if name != ANY]
    means = {name: flat[turns.groups == name].mean(axis=0, dtype=np.float64) for name in named}
    if means:
        own -= np.stack([means.get(name, overall) for name in turns.groups[members].tolist()])
        rows = np.flatnonzero(turns.wanted != ANY)
        mixed[rows] = np.stack([means[name] for name in turns.wanted[rows].tolist()])
        mixed[rows] += parts[rows] @ own
    return _settled(mixed, array)


def _are_numbers(array: Array) -> bool:
    """Whether values are quantities: floats, and integers of 8 and 16 bits such as pixels."""
    return array.dtype.kind == "f" or (array.dtype.kind in "iu" and array.dtype.itemsize <= 2)


def _settled(mixed: Floats, like: Array) -> Array:
    """Numbers in the range of the examples, as coarse as theirs, of their shape and dtype.

    What fewer than ten examples have in a place, beside what all others have, is not told.
    """
    flat = like.reshape(len(like), -1)
    low, high = _outwards(flat, each=like.ndim == 2)
    clipped = np.clip(mixed, low, high)
    if like.dtype.kind != "f" or bool((flat == np.rint(flat)).all()):
        rounded = np.rint(clipped)
    else:
        step = _step(high - low, _GRID)
        rounded = np.rint(clipped / step) * step
    rare, usual = _rare(flat)
    rounded = np.where(rare, usual, rounded)
    return rounded.astype(like.dtype).reshape(len(mixed), *like.shape[1:])


def _outwards(flat: Array, *, each: bool) -> tuple[Floats, Floats]:
    """The range of all values, or of each column, rounded outwards to a sixteenth."""
    axis = 0 if each else None
    low = np.asarray(flat.min(axis=axis), np.float64)
    high = np.asarray(flat.max(axis=axis), np.float64)
    step = _step(high - low, _COARSE)
    low, high = np.floor(low / step) * step, np.ceil(high / step) * step
    if flat.dtype.kind != "f":
        ends = np.iinfo(flat.dtype.name)
        low, high = np.maximum(low, ends.min), np.minimum(high, ends.max)
    return low, high


def _step(span: Floats, digits: int) -> Floats:
    """A power of two, by so many binary digits below that of a range."""
    return np.asarray(2.0 ** (np.floor(np.log2(np.where(span > 0, span, 1.0))) - digits))


def _rare(flat: Array) -> tuple[NDArray[np.bool_], NDArray[np.generic]]:
    """The places that differ in fewer than ten examples (a quarter, if there are few), and what
    the others have."""
    most = max(1, min(LEAST, len(flat) // 4)) - 1
    ends = (most, len(flat) - 1 - most)
    ordered = np.partition(flat, sorted({*ends, len(flat) // 2}), axis=0)
    return ordered[ends[0]] == ordered[ends[1]], ordered[len(flat) // 2]


def _by_chance(array: Array, count: int, rng: np.random.Generator) -> Array:
    """Numbers between the least and the largest: fewer than ten examples have nothing in common."""
    low, high = float(array.min()), float(array.max())
    drawn = rng.uniform(low, high, size=(count, *array.shape[1:]))
    if array.dtype.kind != "f" or bool((array == np.rint(array)).all()):
        drawn = np.rint(drawn)
    return drawn.astype(array.dtype)


def _named(array: Array, count: int, rng: np.random.Generator) -> Array:
    """Whole numbers and truth values that name things: each of them one that ten examples have.

    Where there is none, any between the least and the largest.
    """
    flat = array.reshape(len(array), -1)
    held = Counter(value for row in flat.tolist() for value in set(row))
    shared = [value for value, times in sorted(held.items()) if times >= LEAST]
    shape = (count, *array.shape[1:])
    if shared:
        often = np.asarray([held[value] for value in shared], np.float64)
        picked = rng.choice(len(shared), size=shape, p=often / often.sum())
        return np.asarray(shared, array.dtype)[picked]
    if array.dtype.kind == "b":
        return rng.integers(0, 2, size=shape).astype(array.dtype)
    return rng.integers(int(array.min()), int(array.max()), size=shape, endpoint=True).astype(
        array.dtype
    )


def _texts(array: Array, turns: Turns, rng: np.random.Generator) -> Array:
    """Texts of words that ten examples share, about as many as examples have, by class; without
    such words, of letters by chance."""
    flat = array.reshape(len(array), -1)
    rows = [[str(text).split() for text in row] for row in flat.tolist()]
    held = Counter(word for row in rows for word in {one for words in row for one in words})
    common = {word for word, times in held.items() if times >= LEAST}
    said: dict[int, list[str]] = {}
    for row, group in zip(rows, turns.groups.tolist(), strict=True):
        said.setdefault(group, []).extend(w for words in row for w in words if w in common)
    length = max(1, round(float(np.median([len(words) for row in rows for words in row]))))
    anything = sorted(common) or _letters(rng)
    drawn = [
        [
            " ".join(pool[i] for i in rng.integers(0, len(pool), min(length, MOST_WORDS)).tolist())
            for _ in range(flat.shape[1])
        ]
        for pool in (said.get(group) or anything for group in turns.wanted.tolist())
    ]
    kind = object if array.dtype.kind == "O" else np.str_  # of any length
    return np.asarray(drawn, kind).reshape(len(drawn), *array.shape[1:])


def _letters(rng: np.random.Generator) -> list[str]:
    return ["".join(map(chr, rng.integers(97, 123, 6).tolist())) for _ in range(64)]
