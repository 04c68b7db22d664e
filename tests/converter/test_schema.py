"""The JSON Schema of recipes, held against the parser, the specification and every example."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter import cli
from edgefleet_converter.join_recipe import load_join
from edgefleet_converter.recipe import parse_recipe
from edgefleet_converter.recipe_schema import join_schema, recipe_schema
from edgefleet_converter.recipe_words import WORDS

jsonschema = pytest.importorskip("jsonschema")
ROOT = Path(__file__).parents[2]
DATA = '[data]\ncalibration = "c.npy"\nheld_out = "h.npz"\n'


def accepts(schema: dict[str, Json], text: str) -> bool:
    checker = jsonschema.Draft202012Validator(schema)
    return bool(checker.is_valid(tomllib.loads(text)))


def parses(text: str) -> bool:
    try:
        parse_recipe(text, folder=Path("/recipes"))
    except OperatorError:
        return False
    return True


def joins(text: str, tmp_path: Path) -> bool:
    path = tmp_path / "join.toml"
    path.write_text(text)
    try:
        load_join(path)
    except OperatorError:
        return False
    return True


def examples() -> Iterator[tuple[str, str]]:
    """Every TOML block of the pages, and every TOML file of the demo."""
    for page in sorted(ROOT.glob("docs/**/*.md")):
        for i, block in enumerate(re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)):
            yield f"{page.name}-{i}", block
    for path in sorted(ROOT.glob("demo/*.toml")):
        yield path.name, path.read_text()


def is_recipe(text: str) -> bool:
    """Whole recipes and parts of one, which have words that nothing else has."""
    try:
        keys = tomllib.loads(text).keys()
    except tomllib.TOMLDecodeError:
        return False
    return bool(keys & {"before", "after", "targets", "state", "data"}) and "nodes" not in keys


RECIPES = [(name, text) for name, text in examples() if is_recipe(text)]
JOINS = [(name, text) for name, text in examples() if "[[nodes]]" in text]


def whole(text: str) -> str:
    """A part of a recipe with the data that it needs to be one."""
    return text if "[data]" in text else f"{text}\n{DATA}"


def test_the_schemas_are_schemas() -> None:
    for schema in (recipe_schema(), join_schema()):
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(("name", "text"), RECIPES, ids=[name for name, _ in RECIPES])
def test_every_example_is_what_the_schema_says(name: str, text: str) -> None:
    assert parses(whole(text)), name
    assert accepts(recipe_schema(), whole(text)), name


@pytest.mark.parametrize(("name", "text"), JOINS, ids=[name for name, _ in JOINS])
def test_every_example_of_a_join_is_what_the_schema_says(
    name: str, text: str, tmp_path: Path
) -> None:
    assert joins(text, tmp_path), name
    assert accepts(join_schema(), text), name


def test_there_are_examples_to_hold_it_against() -> None:
    assert len(RECIPES) >= 4
    assert len(JOINS) >= 1


def tables(value: Json, at: str = "") -> Iterator[tuple[str, dict[str, Json]]]:
    """Every table of a document, with its place."""
    if isinstance(value, dict):
        yield at, value
        for key, item in value.items():
            yield from tables(item, f"{at}.{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from tables(item, f"{at}[{i}]")


FULL = """
targets = ["onnx-as-is"]
outputs = ["label"]
[data]
held_out = "h.npz"
labels = "l.txt"
[source]
trusted_types = []
[parity]
max_abs_err = 1e-4
[budget]
min_sqnr_db = 3
[golden]
vectors = 3
[measure]
runs = 10
[limits]
p95_factor = 2
[worker]
timeout_s = 9
[card]
task = "x"
[[before]]
step = "normalise"
mean = [0.5, "1/3"]
std = [1, 1]
[[after]]
step = "top_k"
k = 3
"""


def test_an_unknown_key_is_refused_by_both_in_every_table() -> None:
    assert parses(FULL)
    assert accepts(recipe_schema(), FULL)
    checker = jsonschema.Draft202012Validator(recipe_schema())
    places = [at for at, _ in tables(tomllib.loads(FULL))]
    assert len(places) == 12
    for place in places:
        value = copy.deepcopy(tomllib.loads(FULL))
        dict(tables(value))[place]["no_such_key"] = 1
        assert not checker.is_valid(value), place
        assert not parses(as_toml(value)), place


def as_toml(value: dict[str, Json]) -> str:
    """Inline tables on one line each: JSON is nearly that."""

    def told(item: Json) -> str:
        if isinstance(item, dict):
            return "{" + ", ".join(f"{key} = {told(one)}" for key, one in item.items()) + "}"
        if isinstance(item, list):
            return "[" + ", ".join(map(told, item)) + "]"
        return json.dumps(item)

    return "".join(f"{key} = {told(item)}\n" for key, item in value.items())


WRONG = [
    "",
    'targets = []\n[data]\nheld_out = "h"\n',
    'targets = ["onnx-int8", "onnx-int8"]\n' + DATA,
    'targets = ["onnx-int9"]\n' + DATA,
    'targets = ["onnx-int8"]\n[data]\nheld_out = "h"\n',
    '[data]\nheld_out = "h"\n',
    '[data]\ncalibration = "c"\n',
    'targets = "onnx-int8"\n' + DATA,
    DATA + "[golden]\nvectors = 0\n",
    DATA + "[golden]\nvectors = 257\n",
    DATA + "[golden]\nvectors = true\n",
    DATA + "[measure]\nruns = 9\n",
    DATA + '[measure]\nenabled = "yes"\n',
    DATA + "[parity]\nmax_abs_err = 0\n",
    DATA + "[budget]\nmax_accuracy_drop = 1.1\n",
    DATA + "[limits]\np95_factor = 0.5\n",
    DATA + "[limits]\nram_extra_mib = -1\n",
    DATA + "[worker]\ntimeout_s = 0\n",
    DATA + "[worker]\nmemory_mib = 255\n",
    DATA + "[card]\nauthors = [1]\n",
    DATA + '[[before]]\nstep = "fly"\n',
    DATA + "[[before]]\nk = 1\n",
    DATA + '[[before]]\nstep = "grey"\nfile = "x"\n',
    DATA + '[[before]]\nstep = "resize"\nheight = "tall"\nwidth = 3\n',
    DATA + "before = 3\n",
    'folder = "/"\n' + DATA,
]


@pytest.mark.parametrize("text", WRONG)
def test_what_the_parser_refuses_the_schema_refuses(text: str) -> None:
    assert not parses(text)
    assert not accepts(recipe_schema(), text)


@pytest.mark.parametrize("target", ["onnx-float32", "tflite-as-is"])
def test_calibration_is_asked_for_where_a_target_is_int8(target: str) -> None:
    text = f'targets = ["{target}"]\n[data]\nheld_out = "h"\n'
    assert parses(text)
    assert accepts(recipe_schema(), text)


def test_a_number_may_stand_where_a_step_takes_text() -> None:
    for value in ("0.5", '"1/2"', "1"):
        text = DATA + f'[[before]]\nstep = "normalise"\nmean = [{value}]\n'
        assert parses(text)
        assert accepts(recipe_schema(), text)


def keys(schema: Json, at: str = "", section: str = "") -> Iterator[tuple[str, str]]:
    """Every key that is no section, with what is said of it, or of its section."""
    assert isinstance(schema, dict)
    properties = schema.get("properties")
    assert isinstance(properties, dict)
    for name, told in properties.items():
        place = f"{at}.{name}" if at else name
        assert isinstance(told, dict)
        says = str(told.get("description", section))
        if "properties" in told:
            yield from keys(told, place, says)
        else:
            yield place, says


def test_every_key_or_its_section_is_described() -> None:
    for schema in (recipe_schema(), join_schema()):
        for place, says in keys(schema):
            assert says, f"{place}: say in recipe_words.py what it means"


def test_the_words_are_those_of_the_specification() -> None:
    page = (ROOT / "docs/spec/recipe.md").read_text()
    found = re.findall(r"^\| `([a-z0-9_.]+)` \|[^|]*\| (.*) \|$", page, re.MULTILINE)
    for key, meaning in found:
        if key in WORDS:
            assert WORDS[key] == meaning.replace("`", ""), f"recipe_words.py on {key}"
    assert len([key for key, _ in found if key in WORDS]) >= 10


def test_no_word_is_of_a_key_that_does_not_exist() -> None:
    known = {place for schema in (recipe_schema(), join_schema()) for place, _ in keys(schema)}
    assert set(WORDS) - known == set()


@pytest.mark.parametrize("of", ["recipe", "join"])
def test_the_command_prints_the_schema(of: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["schema", of]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == (recipe_schema() if of == "recipe" else join_schema())
    assert told["$schema"] == "https://json-schema.org/draft/2020-12/schema"
