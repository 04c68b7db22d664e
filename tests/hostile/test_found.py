"""Faults that the corpus found once: each stays mended."""

from __future__ import annotations

import time

import pytest

from edgefleet_contract import canonical
from edgefleet_contract.errors import Malformed

ESCAPES = b'"' + b'\\"' * (canonical.MAX_BYTES // 2 - 1)


@pytest.mark.parametrize("raw", [ESCAPES, ESCAPES + b"\\", b'["' * 100_000, b'"' * 200_000])
def test_no_spelling_makes_the_reader_look_at_a_byte_twice(raw: bytes) -> None:
    """A string without an end once cost the square of its length: minutes for 256 KiB."""
    began = time.process_time()
    with pytest.raises(Malformed):
        canonical.parse_message(raw, what="x")
    assert time.process_time() - began < 5


@pytest.mark.parametrize("raw", [b'{"a":"\\ud800"}', b'["\\uDFFF"]', b'["\\ude00\\ud83d"]'])
def test_text_that_cannot_be_written_is_not_read(raw: bytes) -> None:
    """A lone surrogate in a message once ended whoever stored or hashed it."""
    with pytest.raises(Malformed, match="lone surrogate"):
        canonical.parse_message(raw, what="x")
    assert canonical.parse_message(b'["\\ud83d\\ude00"]', what="x") == ["\U0001f600"]
