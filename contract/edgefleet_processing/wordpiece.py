"""Greedy longest match of a word against a vocabulary (WordPiece; Wu et al. 2016, section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping


def pieces(word: str, ids: Mapping[str, int], prefix: str) -> list[int] | None:
    """The ids of the longest pieces from the left; None where a rest is no piece.

    All pieces but the first carry `prefix` in the vocabulary.
    """
    found: list[int] = []
    at = 0
    while at < len(word):
        mark = prefix if at else ""
        for end in range(len(word), at, -1):
            token = ids.get(mark + word[at:end])
            if token is not None:
                found.append(token)
                at = end
                break
        else:
            return None
    return found
