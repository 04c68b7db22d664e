"""References to other files are found wherever they hide, and garbage is no ONNX."""

from __future__ import annotations

import pytest

from edgefleet_agent.runtime.onnx_external import NotOnnx, external_tensors
from tests.agent.models import HERE, raw


@pytest.mark.parametrize("file", ["external.onnx", "external_branch.onnx"])
def test_external_data_is_found_at_the_top_and_inside_a_branch(file: str) -> None:
    assert external_tensors(raw(file)) == ["W"]


def test_models_that_hold_their_data_have_none() -> None:
    plain = [path for path in HERE.glob("*.onnx") if not path.name.startswith("external")]
    assert len(plain) > 5
    for path in plain:
        assert external_tensors(path.read_bytes()) == []


def test_every_truncation_is_refused_or_plain() -> None:
    whole = raw("linear1.onnx")
    refused = 0
    for end in range(len(whole)):
        try:
            assert external_tensors(whole[:end]) == []
        except NotOnnx:
            refused += 1
    assert refused > len(whole) * 0.9


@pytest.mark.parametrize("garbage", [b"\xff" * 20, b"\x3a\xff\xff\xff\xff\x0f", b"TFL3 not this"])
def test_garbage_is_not_onnx(garbage: bytes) -> None:
    with pytest.raises(NotOnnx):
        external_tensors(garbage)


def test_bottomless_nesting_ends() -> None:
    graph = b""
    for _ in range(200):  # attribute.g in node.attribute in graph.node, again and again
        for key in (0x32, 0x2A, 0x0A):
            size, length = len(graph), b""
            while size > 0x7F:
                length += bytes([size & 0x7F | 0x80])
                size >>= 7
            graph = bytes([key]) + length + bytes([size]) + graph
    size, length = len(graph), b""
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    with pytest.raises(NotOnnx, match="deep"):
        external_tensors(b"\x3a" + length + bytes([size]) + graph)
