"""Functions of the user's: where they fail is told, whatever they are for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.user_code import find_function, running

CODE = """import helpers

def divides(outputs, y):
    return 1 / len(y)

def through(outputs, y):
    return helpers.deep(outputs)

def library(outputs, y):
    import json
    return json.loads("{")

def leaves(outputs, y):
    raise SystemExit(3)

def reads(outputs, y):
    return open("weights.pt")

def quiet(outputs, y):
    raise KeyError

number = 7
"""
HELPERS = """
def deep(x):
    return x.shape
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "scores_of_mine.py").write_text(CODE)
    (tmp_path / "helpers.py").write_text(HELPERS)
    (tmp_path / "broken_of_mine.py").write_text("def f(:\n    pass\n")
    (tmp_path / "wants_of_mine.py").write_text("\nimport no_such_package\n")
    (tmp_path / "fails_of_mine.py").write_text("x = {}\ny = x['a']\n")
    path, known = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def call(folder: Path, name: str, *given: Any) -> Any:
    function = find_function(f"scores_of_mine:{name}", folder, what="search.metric")
    with running(f"search.metric scores_of_mine:{name}", folder):
        return function(*given)


@pytest.mark.parametrize(
    ("name", "says", "line"),
    [
        ("divides", "scores_of_mine.py:4: ZeroDivisionError: division by zero", "1 / len(y)"),
        ("through", "helpers.py:3: AttributeError: 'list' object has no", "return x.shape"),
        ("library", "scores_of_mine.py:11: JSONDecodeError: Expecting", "json.loads"),
        ("leaves", "scores_of_mine.py:14: SystemExit: 3", "raise SystemExit(3)"),
        (
            *("reads", "scores_of_mine.py:17: FileNotFoundError: [Errno 2] No such file"),
            "pathlib.Path(__file__).with_name('weights.pt')",
        ),
        ("quiet", "scores_of_mine.py:20: KeyError", "raise KeyError"),
    ],
)
def test_what_a_function_raises_is_told_with_its_file_and_line(
    folder: Path, name: str, says: str, line: str
) -> None:
    with pytest.raises(OperatorError) as caught:
        call(folder, name, [], [])
    assert f"search.metric scores_of_mine:{name} failed at {says}" in caught.value.message
    assert line in caught.value.hint


@pytest.mark.parametrize(
    ("name", "says", "hint"),
    [
        ("scores_of_mine:divide", "scores_of_mine.py has no function 'divide'", "it has divides,"),
        ("scores_of_mine:number", "scores_of_mine.py has a int, not one, 'number'", "it has"),
        ("nowhere_of_mine:f", "there is no module 'nowhere_of_mine'", "are looked for in"),
        ("scores_of_mine.deeper:f", "there is no module 'scores_of_mine.deeper'", "looked for in"),
        ("broken_of_mine:f", "failed at broken_of_mine.py:1: SyntaxError", "def f(:"),
        ("wants_of_mine:f", "wants_of_mine.py:2: ModuleNotFoundError: No module named", "import"),
        ("fails_of_mine:f", "failed at fails_of_mine.py:2: KeyError: 'a'", "y = x['a']"),
    ],
)
def test_a_function_that_cannot_be_had_says_why(
    folder: Path, name: str, says: str, hint: str
) -> None:
    with pytest.raises(OperatorError) as caught:
        find_function(name, folder, what="factory")
    assert f"factory {name}" in caught.value.message
    assert says in caught.value.message
    assert hint in caught.value.hint


def test_memory_that_ran_out_and_our_own_words_go_through(folder: Path) -> None:
    for error in (MemoryError(), OperatorError("too few")):
        with pytest.raises(type(error)) as caught, running("it", folder):
            raise error
        assert caught.value is error


def test_an_error_of_nobodys_own_code_is_told_without_a_place(folder: Path) -> None:
    with pytest.raises(OperatorError) as caught, running("the module", folder):
        raise ValueError("two\nlines")
    assert caught.value.message == "the module failed: ValueError: two"
    assert caught.value.hint == ""
