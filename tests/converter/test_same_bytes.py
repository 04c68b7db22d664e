"""The same input gives the same bytes in an environment that is unlike in all that may differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.converter import same_bytes
from tests.converter.conftest import Digits


@pytest.fixture(scope="module")
def folder(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("given")
    same_bytes.lay_ground(
        made, lambda line, out: same_bytes.convert(made, line, out, {}), source=digits.model
    )
    return made


@pytest.mark.parametrize("name", ["tflite", "join", "prune-search-steps"])
def test_files_but_the_signature_are_the_same_elsewhere(
    name: str, folder: Path, tmp_path: Path
) -> None:
    """The longest takes some seconds: it is a whole search, and each build is a real command."""
    assert same_bytes.differing(folder, tmp_path / name, same_bytes.CASES[name]) == []
