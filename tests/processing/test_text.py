"""Text to ids and hashes, against the tokenizers and hashes that others ship."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet_contract.errors import Malformed
from edgefleet_processing import StepFailed
from edgefleet_processing.hashing import signed_hash
from edgefleet_processing.text import split_words
from tests.processing.steps import many, one, ready, text

VECTORS = Path(__file__).parent / "vectors"
TOKENS = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nun\n##aff\n##able\n!\naff\nthe\n"


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_text_is_normalised_as_unicode_says(form: str) -> None:
    x = text("\u0041\u030a \ufb01ne", "\u212b", "STRASSE \u1e9e")
    found = one("normalise_text", x, form=form, lower=False)
    assert found.tolist() == [unicodedata.normalize(form, line) for line in x]
    assert one("normalise_text", x, form="none").tolist() == [line.lower() for line in x]


def test_accents_go_where_they_are_not_wanted() -> None:
    x = text("Crème Brûlée", "naïve")
    assert one("normalise_text", x, accents=False).tolist() == ["creme brulee", "naive"]


def test_words_have_the_ids_of_their_lines() -> None:
    ids, mask = many("words", text("the aff, the!", "", "un un un un un"), raw=TOKENS, length=4)
    assert ids.tolist() == [[9, 8, 1, 9], [0, 0, 0, 0], [4, 4, 4, 4]]
    assert mask.tolist() == [[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]]
    assert (ids.dtype, mask.dtype) == (np.int64, np.int64)


def test_pieces_are_the_longest_from_the_left() -> None:
    ids, mask = many(
        "wordpiece", text("unaffable the!", "unx the"), raw=TOKENS, length=9, dtype="int32"
    )
    assert ids.tolist() == [[2, 4, 5, 6, 9, 7, 3, 0, 0], [2, 1, 9, 3, 0, 0, 0, 0, 0]]
    assert mask.tolist() == [[1] * 7 + [0] * 2, [1] * 4 + [0] * 5]
    assert ids.dtype == np.int32


def test_what_is_too_long_is_cut_before_the_end_token() -> None:
    ids, mask = many("wordpiece", text("unaffable " * 9), raw=TOKENS, length=5)
    assert ids.tolist() == [[2, 4, 5, 6, 3]]
    assert mask.tolist() == [[1] * 5]
    bare, _ = many("wordpiece", text("unaffable"), raw=TOKENS, length=5, start="", end="")
    assert bare.tolist() == [[4, 5, 6, 0, 0]]


def test_word_pieces_are_those_of_huggingfaces_tokenizers() -> None:
    """vectors/wordpiece.json was made by vectors/make.py."""
    told = json.loads((VECTORS / "wordpiece.json").read_text())
    x = text(*told["texts"])
    lower = one("normalise_text", x, accents=False, form="none")
    raw = "\n".join(told["vocabulary"]).encode()
    ids, mask = many("wordpiece", lower, raw=raw, length=told["length"])
    assert ids.tolist() == told["ids"]
    assert mask.tolist() == told["mask"]


@given(st.text(max_size=60))
@settings(deadline=None)
def test_no_letter_is_lost_between_words(line: str) -> None:
    kept = [c for c in line if c.isalnum()]
    words = list(split_words(line))
    assert [c for c in "".join(words) if c.isalnum()] == kept
    assert all(words)
    assert not any(c.isspace() for word in words for c in word)


@pytest.mark.parametrize(
    ("norm", "signs", "longest"), [("l2", True, 1), ("l1", False, 2), ("none", True, 3)]
)
def test_hashed_words_are_scikit_learns(norm: str, signs: bool, longest: int) -> None:
    text_features = pytest.importorskip("sklearn.feature_extraction.text")
    lines = ["The quick brown fox; the lazy dog", "naïve 東京 タワー 42 x", "", "a b", "fox " * 9]
    theirs = text_features.HashingVectorizer(
        n_features=2048,
        norm=None if norm == "none" else norm,
        alternate_sign=signs,
        ngram_range=(1, longest),
    )
    more = {"features": 2048, "norm": norm, "signs": signs, "longest": longest}
    found = one("hash_words", text(*lines), **more)
    assert (found.dtype, found.shape) == (np.float32, (5, 2048))
    assert np.allclose(found, theirs.transform(lines).toarray(), atol=1e-6)


@given(st.text(max_size=40))
@settings(deadline=None)
def test_the_hash_is_scikit_learns(word: str) -> None:
    utils = pytest.importorskip("sklearn.utils")
    try:
        raw = word.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate: no client can send one
    assert signed_hash(word) == utils.murmurhash3_32(raw, seed=0)


def test_the_hash_is_the_published_one() -> None:
    """Test vectors of MurmurHash3_x86_32 with seed 0."""
    assert signed_hash("") == 0
    assert signed_hash("test") & 0xFFFFFFFF == 0xBA6BD213
    assert signed_hash("Hello, world!") & 0xFFFFFFFF == 0xC0363E43


@pytest.mark.parametrize(
    ("raw", "more", "says"),
    [
        (b"", {}, "is empty"),
        (b"a\na\n", {}, "twice"),
        (b"\xff\n", {}, "UTF-8"),
        (b"a\nb\n", {}, "has no '\\[UNK\\]'"),
        (TOKENS, {"padding": "<pad>"}, "has no '<pad>'"),
        (TOKENS, {"length": 0}, "length is 0"),
        (TOKENS, {"length": 70_000}, "length is 70000"),
        (None, {}, "needs a file"),
    ],
)
@pytest.mark.parametrize("op", ["words", "wordpiece"])
def test_a_vocabulary_that_is_none_is_refused(
    op: str, raw: bytes | None, more: dict[str, object], says: str
) -> None:
    with pytest.raises(Malformed, match=says):
        ready(op, raw=raw, **({"length": 8} | more))


def test_a_vocabulary_may_end_its_lines_as_windows_does() -> None:
    ids, _ = many("words", text("b"), raw=b"[PAD]\r\n[UNK]\r\nb\r\n", length=1)
    assert ids.tolist() == [[2]]


@pytest.mark.parametrize("op", ["words", "normalise_text", "hash_words"])
def test_numbers_and_broken_text_are_refused(op: str) -> None:
    more: dict[str, object] = {"words": {"length": 4}, "hash_words": {"features": 4}}.get(op, {})
    raw = TOKENS if op == "words" else None
    for wrong in (np.zeros(2, np.float32), np.array([b"\xff"], object)):
        with pytest.raises(StepFailed, match="text"):
            one(op, wrong, raw=raw, **more)
    assert one(op, np.array([b"the"], object), raw=raw, **more) is not None
    with pytest.raises(StepFailed, match="characters at most"):
        one(op, text("x" * 1_000_001), raw=raw, **more)


def test_marks_without_end_are_refused_before_they_are_sorted() -> None:
    fine = "a" + "\u0301\u0327" * 15
    assert one("normalise_text", text(fine)).tolist() == [unicodedata.normalize("NFC", fine)]
    with pytest.raises(StepFailed, match="30 combining marks"):
        one("normalise_text", text("a" + "\u0301\u0327" * 100_000))


def test_a_line_separator_parts_words() -> None:
    assert list(split_words("a\u2028b\u3000c\x00d")) == ["a", "b", "cd"]


def test_a_row_that_would_be_too_large_is_refused_before_it_is_made() -> None:
    with pytest.raises(StepFailed, match="would need"):
        one("hash_words", text(*["a"] * 100), features=1 << 20)
