"""The same input gives the same bytes in an environment that is unlike in all that may differ.

These are the quick cases; `make same-bytes` has all, with searches.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefleet_converter.pipeline import Built
from tests.converter import same_bytes
from tests.converter.conftest import Digits


@pytest.mark.parametrize("name", ["join", "prune"])
def test_files_but_the_signature_are_the_same_elsewhere(
    name: str, digits: Digits, built: Built, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    skops = digits.model.read_bytes()
    same_bytes.lay_ground(given, {"skops": skops} | same_bytes.float_models(built.path))
    assert same_bytes.differing(given, tmp_path / name, same_bytes.CASES[name]) == []
