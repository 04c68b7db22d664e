from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet_contract import cards, codec
from edgefleet_contract.cards import Dataset, Material, Metric, parse_card, parse_provenance
from edgefleet_contract.errors import Malformed
from tests.vectors.make import manifest

A, B = "a" * 64, "b" * 64


def bom() -> dict[str, Any]:
    """A bill of materials as another producer might write it."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 3,
        "metadata": {
            "timestamp": "2026-01-02T03:04:05Z",
            "supplier": {"name": "Somebody"},
            "tools": {"components": [{"type": "library", "name": "trainer", "version": "2"}]},
            "component": {
                "type": "machine-learning-model",
                "name": "m",
                "licenses": [{"license": {"id": "MIT"}}, {"license": {"name": "Ours"}}],
                "modelCard": {
                    "modelParameters": {
                        "task": "regression",
                        "datasets": [
                            {"ref": "somewhere"},
                            {
                                "type": "dataset",
                                "name": "d",
                                "contents": {
                                    "properties": [
                                        {"name": "edgefleet:sha256", "value": A},
                                        {"name": "edgefleet:examples", "value": "12"},
                                        {"name": "theirs", "value": "x"},
                                    ]
                                },
                            },
                        ],
                    },
                    "quantitativeAnalysis": {"performanceMetrics": [{"type": "MAE", "value": "2"}]},
                },
            },
        },
        "components": [
            {"type": "library", "name": "numpy"},
            {
                "type": "file",
                "name": "m.onnx",
                "hashes": [{"alg": "MD5", "content": "0"}, {"alg": "SHA-256", "content": B}],
            },
        ],
    }


def statement() -> dict[str, Any]:
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://slsa.dev/provenance/v1",
        "subject": [{"name": "m.onnx", "digest": {"sha256": B, "sha1": "0"}}],
        "predicate": {
            "buildDefinition": {
                "buildType": "https://example.org/build",
                "externalParameters": {"a": {"b": 1.5, "c": [True, None]}, "d": "text", "e": {}},
                "resolvedDependencies": [
                    {"name": "source", "digest": {"sha256": A}, "uri": "git+https://example.org"}
                ],
            },
            "runDetails": {"builder": {"id": "https://example.org", "version": {"x": "1"}}},
        },
    }


def raw(value: object) -> bytes:
    return json.dumps(value).encode()


def changed(document: dict[str, Any], path: str, value: object) -> bytes:
    """A document with one field set, or removed for `...`."""
    node: Any = document
    *folders, last = path.split("/")
    for name in folders:
        node = node[int(name) if isinstance(node, list) else name]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return raw(document)


def test_a_card_of_another_producer_is_read_as_far_as_it_is_known() -> None:
    card = parse_card(raw(bom()))
    assert (card.name, card.version, card.task) == ("m", "", "regression")
    assert card.licence == "MIT AND Ours"
    assert card.datasets == (Dataset(""), Dataset("d", "", cards.Digest(A), 12))
    assert card.metrics == (Metric("MAE", "2"),)
    assert [(one.path, one.sha256) for one in card.files] == [("m.onnx", B)]
    assert card.tools == {"trainer": "2"}


def test_an_origin_of_another_producer_is_read_and_its_parameters_are_flat() -> None:
    origin = parse_provenance(raw(statement()))
    assert origin.parameters == {"a.b": "1.5", "a.c": "[true, null]", "d": "text"}
    assert origin.source == Material("source", cards.Digest(A))
    assert origin.versions == {"x": "1"}
    assert (origin.started, origin.invocation) == ("", "")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("bomFormat", "SPDX"),
        ("specVersion", "1.4"),
        ("specVersion", 1.6),
        ("metadata", ...),
        ("metadata/component", []),
        ("metadata/component/type", "library"),
        ("metadata/component/name", ...),
        ("metadata/component/name", "\x1b]0;mine\x07"),
        ("metadata/component/description", "right\u202eleft"),
        ("metadata/component/description", "\ud800"),
        ("metadata/component/modelCard/modelParameters/task", 7),
        ("metadata/component/modelCard/modelParameters/task", None),
        (
            "metadata/component/modelCard/modelParameters/datasets/1/contents/properties/0/value",
            "a",
        ),
        (
            "metadata/component/modelCard/modelParameters/datasets/1/contents/properties/1/value",
            "-1",
        ),
        ("components/1/hashes", []),
        ("components/1/hashes/1/content", "B" * 64),
        ("components/1/name", "line\u2028line"),
        ("unknown\x00key", 1),
    ],
)
def test_a_card_that_is_none_is_refused(path: str, value: object) -> None:
    with pytest.raises(Malformed, match=r"sbom\.cdx\.json"):
        parse_card(changed(bom(), path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("_type", "https://in-toto.io/Statement/v0.1"),
        ("predicateType", "https://slsa.dev/provenance/v0.2"),
        ("subject", ...),
        ("subject", [{"name": "m.onnx", "digest": {"sha512": B}}]),
        ("predicate/buildDefinition/externalParameters", ...),
        ("predicate/buildDefinition/externalParameters", [1]),
        ("predicate/buildDefinition/resolvedDependencies/0/digest/sha256", "zz"),
        ("predicate/runDetails/builder", ...),
        ("predicate/runDetails/builder/version/x", 1),
        ("predicate/buildDefinition/buildType", "\x9b31m"),
    ],
)
def test_an_origin_that_is_none_is_refused(path: str, value: object) -> None:
    with pytest.raises(Malformed, match=r"provenance\.intoto\.json"):
        parse_provenance(changed(statement(), path, value))


@pytest.mark.parametrize("parse", [parse_card, parse_provenance])
@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"a":1,"a":2}', b"[" * 5000, b'{"a":NaN}', b"\xff", b" " * 300_000],
)
def test_what_is_no_strict_json_object_is_refused(parse: Any, body: bytes) -> None:
    with pytest.raises(Malformed):
        parse(body)


def test_a_file_that_bundle_json_does_not_have_differs() -> None:
    signed = manifest()
    same = cards.FileDigest(signed.files[0].path, signed.files[0].sha256)
    other = cards.FileDigest(signed.files[1].path, cards.Digest(A))
    extra = cards.FileDigest("extra.bin", cards.Digest(A))
    assert cards.differing((same, other, extra), signed) == (other.path, "extra.bin")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value of a document stands."""
    found = [at]
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(item, (*at, key))
    return found


def leaves(value: Any) -> list[Any]:
    """Every value of a document that holds no others."""
    inner = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list):
        return [leaf for item in inner for leaf in leaves(item)]
    return [value]


@pytest.mark.parametrize(("parse", "make"), [(parse_card, bom), (parse_provenance, statement)])
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_anything_in_any_place_is_read_or_refused_and_nothing_else(
    parse: Any, make: Any, data: st.DataObject
) -> None:
    document = make()
    *folders, last = data.draw(st.sampled_from(places(document)[1:]))
    node = document
    for name in folders:
        node = node[name]
    node[last] = data.draw(JSON)
    with contextlib.suppress(Malformed):
        shown = codec.encode(parse(raw(document)))
        texts = [text for text in leaves(shown) if isinstance(text, str)]
        assert all(cards.is_plain(text) for text in texts)
