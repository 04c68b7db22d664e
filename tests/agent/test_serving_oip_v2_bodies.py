"""Bodies of the Open Inference Protocol as values: nothing is copied in vain, nothing escapes."""

from __future__ import annotations

import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_agent.runtime.frames import pack_opening
from edgefleet_agent.serving.bodies import BadBody, Served
from edgefleet_agent.serving.oip_v2_bodies import Request, parse, read_answer, render
from edgefleet_contract.bundle import TensorSpec

X, WORD = TensorSpec("x", "float32", (-1, 4)), TensorSpec("word", "string", (-1,))
MODEL = Served("m", 1, (X, WORD), (X, WORD))
WORDS = b"\x03\0\0\0dog"
HEAD = json.dumps(
    {
        "inputs": [
            {
                "name": "x",
                "datatype": "FP32",
                "shape": [1, 4],
                "parameters": {"binary_data_size": 16},
            },
            {
                "name": "word",
                "datatype": "BYTES",
                "shape": [1],
                "parameters": {"binary_data_size": 7},
            },
        ]
    }
).encode()
GOOD = HEAD + bytes(16) + WORDS
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def frame(head: bytes, rest: bytes) -> bytes:
    return pack_opening(len(head)) + head + rest


@pytest.mark.parametrize("spaces", range(17))
def test_an_aligned_tensor_is_used_where_it_lies(spaces: int) -> None:
    body = frame(HEAD + b" " * spaces, bytes(16) + WORDS)
    x = parse(body, MODEL).feeds["x"]
    assert np.shares_memory(x, np.frombuffer(body, np.uint8))
    assert x.flags.aligned


def test_a_tensor_that_is_not_aligned_is_moved() -> None:
    value = json.loads(HEAD)
    value["inputs"].reverse()
    body = frame(json.dumps(value).encode(), WORDS + np.arange(4, dtype=np.float32).tobytes())
    x = parse(body, MODEL).feeds["x"]
    assert x.flags.aligned
    assert x.tolist() == [[0, 1, 2, 3]]


@given(st.binary(max_size=64), st.integers(0, len(GOOD)), st.integers(0, len(GOOD) + 9))
def test_bytes_put_anywhere_are_refused_or_read(junk: bytes, at: int, size: int) -> None:
    body = GOOD[:at] + junk + GOOD[at + len(junk) :]
    for opening in (pack_opening(size), pack_opening(None), pack_opening(len(HEAD))):
        with suppress(BadBody):
            parse(opening + body, MODEL)


@given(JSON, st.sampled_from(["name", "datatype", "shape", "parameters", "data", "inputs", "id"]))
def test_any_json_in_any_place_is_refused_or_read(value: object, key: str) -> None:
    request = json.loads(HEAD)
    if key in ("inputs", "id"):
        request[key] = value
    else:
        request["inputs"][0][key] = value
    head = json.dumps(request).encode()
    with suppress(BadBody):
        parse(frame(head, bytes(16) + WORDS), MODEL)


@pytest.mark.parametrize("binary", [True, False])
def test_an_answer_read_again_holds_the_outputs_that_were_rendered(binary: bool) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    word = np.array(["dög", ""], object)
    request = Request("7", {}, {"x": binary, "word": not binary})
    found = read_answer(render(request, {"word": word, "x": x}, MODEL))
    assert found["x"].tolist() == x.tolist()
    assert found["word"].tolist() == word.tolist()
