"""Bundles whose programs begin with what clients have, and end with what clients want: built from
real data, then tried and served by the device's own code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import skops.io
from ai_edge_litert import schema_py_generated as schema
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from edgefleet_agent.ports import TrialReport
from edgefleet_contract.bundle import Role
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_converter.arrays import load_tensors
from edgefleet_converter.passes.tflite_file import parse, serialize
from edgefleet_converter.pipeline import Built
from edgefleet_converter.recipe import parse_recipe
from edgefleet_converter.setting import refuse_unlike
from tests.converter.conftest import CREATED, Digits, build
from tests.converter.trials import tried

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "neuf été")
PICTURES = """
targets = ["onnx-int8", "tflite-int8"]
[data]
calibration = "pictures.npy"
held_out = "held_out_pictures.npz"
labels = "labels.txt"

[[before]]
step = "grey"
inputs = ["image"]

[[before]]
step = "resize"
height = 8
width = 8
method = "area"

[[before]]
step = "scale"
factor = 0.06274509803921569

[[before]]
step = "reshape"
shape = [64]

[[after]]
step = "top_k"
k = 3

[measure]
enabled = false
"""


def pictures(pixels: np.ndarray) -> np.ndarray:
    """Digits of 8 by 8, 0 to 16, as photographs would be: uint8 [N, 24, 24, 3]."""
    grey = np.round(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return grey.repeat(3, 1).repeat(3, 2)[..., None].repeat(3, -1)


@pytest.fixture(scope="module")
def folder(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits as clients would send them, beside the model."""
    made = tmp_path_factory.mktemp("pictures")
    held_out = np.load(digits.folder / "held_out.npz")
    np.save(made / "pictures.npy", pictures(np.load(digits.folder / "calibration.npy")[:100]))
    np.savez(made / "held_out_pictures.npz", image=pictures(held_out["x"]), y=held_out["y"])
    (made / "labels.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return made


@pytest.fixture(scope="module")
def seen(folder: Path, digits: Digits, key: PrivateKey) -> Built:
    recipe = parse_recipe(PICTURES, folder=folder)
    return build(
        digits.model, recipe, out=folder / "out", model="seen", version=1, key=key, created=CREATED
    )


def test_pictures_go_in_and_labels_come_out_of_every_variant(seen: Built) -> None:
    for variant in seen.manifest.variants:
        assert [(s.name, s.dtype, s.shape) for s in variant.inputs] == [
            ("image", "uint8", (-1, -1, -1, 3))
        ]
        assert [(s.name, s.dtype, s.shape) for s in variant.outputs] == [
            ("label", "string", (-1, 3)),
            ("score", "float32", (-1, 3)),
        ]
        assert variant.program is not None
        ops = [node.op for node in variant.program.nodes]
        assert ops == ["grey", "resize", "scale", "reshape", "model", "top_k"]
        assert variant.program.nodes[-1].file == seen.manifest.labels == "labels.txt"


def test_accuracy_is_that_of_the_labels_that_clients_get(seen: Built) -> None:
    for told in seen.report.variants:
        assert told.accuracy is not None
        assert told.accuracy.value > 0.93
        assert told.agreement is not None
        assert told.agreement.value > 0.97


@pytest.mark.parametrize("variant", ["onnx-int8", "tflite-int8"])
def test_a_device_gives_the_golden_answers_of_the_whole(seen: Built, variant: str) -> None:
    report = tried(seen.path, seen.manifest, variant)
    assert isinstance(report, TrialReport), report
    assert report.vectors == 16


def test_golden_labels_stay_when_the_models_outputs_are_rounded_another_way(seen: Built) -> None:
    for variant in seen.manifest.variants:
        label, score = load_tensors(seen.path / variant.golden, "output")
        assert len({row[0] for row in label.tolist()}) >= 9, "classes take turns"
        apart = score[:, 0] - score[:, 1]
        assert (apart > variant.max_abs_err_e6 / 1e6).all()


def refused(source: Path, text: str, folder: Path, key: PrivateKey) -> OperatorError:
    """The error of a build that must fail, having left nothing in the output folder."""
    out = folder / "refused"
    with pytest.raises(OperatorError) as caught:
        build(source, parse_recipe(text, folder=folder), out=out, model="m", version=1, key=key)
    assert not out.exists() or not list(out.iterdir())
    return caught.value


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('step = "grey"', 'step = "gray"'), "before[0]: there is no step 'gray'"),
        (("height = 8", "heigth = 8"), "unknown field 'heigth'"),
        (("k = 3", "k = 3.5"), "expected an integer"),
        (("k = 3", 'k = 3\nfile = "others.txt"'), "labels are said twice"),
        (("k = 3", "k = 11"), "has 10 labels, and k is 11"),
        (("shape = [64]", "shape = [32]"), "calibration data: example 0: node 3 (reshape)"),
    ],
)
def test_what_a_step_does_not_take_is_refused_with_its_place(
    folder: Path, digits: Digits, key: PrivateKey, change: tuple[str, str], says: str
) -> None:
    assert change[0] in PICTURES
    error = refused(digits.model, PICTURES.replace(*change), folder, key)
    assert says in error.message


def test_labels_of_another_model_are_refused(folder: Path, digits: Digits, key: PrivateKey) -> None:
    (folder / "nine.txt").write_text("".join(f"{name}\n" for name in NAMES[:9]))
    text = PICTURES.replace("labels.txt", "nine.txt").replace(
        '["onnx-int8", "tflite-int8"]', '["onnx-float32"]'
    )
    assert "has 9 labels, got scores of" in refused(digits.model, text, folder, key).message


SPAM = """
targets = ["onnx-float32"]
[data]
held_out = "texts.npz"

[[before]]
step = "normalise_text"
inputs = ["text"]

[[before]]
step = "hash_words"
features = 512

[[after]]
step = "top_k"
k = 1

[measure]
enabled = false
"""


def test_text_goes_in_and_a_label_comes_out(key: PrivateKey, tmp_path: Path) -> None:
    texts, truth = messages()
    hashed = HashingVectorizer(n_features=512).transform(texts[:120]).toarray()
    model = LogisticRegression(C=100.0).fit(hashed.astype(np.float32), truth[:120])
    skops.io.dump(model, tmp_path / "spam.skops")
    np.savez(tmp_path / "texts.npz", text=np.array(texts[120:]), y=np.array(truth[120:]))
    recipe = parse_recipe(SPAM, folder=tmp_path)
    made = build(
        tmp_path / "spam.skops", recipe, out=tmp_path / "out", model="spam", version=1, key=key
    )
    (variant,) = made.manifest.variants
    assert [(s.name, s.dtype, s.shape) for s in variant.inputs] == [("text", "string", (-1,))]
    (told,) = made.report.variants
    assert told.accuracy is not None
    assert told.accuracy.value > 0.9
    report = tried(made.path, made.manifest, "onnx-float32")
    assert isinstance(report, TrialReport), report
    label, _ = load_tensors(made.path / variant.golden, "output")
    assert set(label.ravel().tolist()) == {"ham", "spam"}


def messages() -> tuple[list[str], list[str]]:
    """Short messages of two kinds, shuffled: words that each kind likes, in any order."""
    chance = np.random.default_rng(5)
    kinds = {
        "ham": "see you at lunch tomorrow the meeting notes are in our folder thanks for dinner",
        "spam": "win a free prize now click to claim your cash reward offer ends today call",
    }
    both = [str(chance.choice(list(kinds))) for _ in range(200)]
    texts = [" ".join(chance.choice(kinds[kind].split(), 7)).capitalize() + "!" for kind in both]
    return texts, both


# Files as they came in


def test_a_quantized_tflite_file_is_packed_as_it_is_with_numbers_outside(
    seen: Built, folder: Path, digits: Digits, key: PrivateKey
) -> None:
    """Its inputs and outputs are int8: the steps between come from the file."""
    whole = folder / "whole-int8.tflite"
    whole.write_bytes(int8_all_through((seen.path / "tflite-int8" / "model.tflite").read_bytes()))
    text = PICTURES.replace('["onnx-int8", "tflite-int8"]', '["tflite-as-is"]')
    made = build(
        whole,
        parse_recipe(text, folder=folder),
        out=folder / "out",
        model="whole",
        version=1,
        key=key,
        created=CREATED,
    )
    (variant,) = made.manifest.variants
    assert variant.precision == "int8"
    assert variant.program is not None
    ops = [node.op for node in variant.program.nodes]
    assert ops == ["grey", "resize", "scale", "reshape", "quantize", "model", "dequantize", "top_k"]
    assert variant.outputs == seen.manifest.variants[1].outputs
    assert (made.path / variant.model).read_bytes() == whole.read_bytes()
    (told,) = made.report.variants
    assert told.accuracy is not None
    assert told.accuracy.value > 0.93
    report = tried(made.path, made.manifest, "tflite-as-is")
    assert isinstance(report, TrialReport), report


def int8_all_through(raw: bytes) -> bytes:
    """The file without its first quantize and its last dequantize: int8 in, int8 out."""
    model = parse(raw)
    graph = model.subgraphs[0]
    codes = [code.builtinCode for code in model.operatorCodes]
    first = next(
        o for o in graph.operators if codes[o.opcodeIndex] == schema.BuiltinOperator.QUANTIZE
    )
    last = next(o for o in graph.operators if o.outputs[0] == graph.outputs[0])
    assert first.inputs[0] == graph.inputs[0]
    assert codes[last.opcodeIndex] == schema.BuiltinOperator.DEQUANTIZE
    graph.inputs, graph.outputs = [first.outputs[0]], [last.inputs[0]]
    graph.operators = [o for o in graph.operators if o is not first and o is not last]
    signature = model.signatureDefs[0]
    signature.inputs[0].tensorIndex = first.outputs[0]
    signature.outputs[0].tensorIndex = last.inputs[0]
    for index in (*graph.inputs, *graph.outputs):
        graph.tensors[index].shapeSignature = [-1, *graph.tensors[index].shape[1:]]
    return bytes(serialize(model))


def test_an_estimator_is_nothing_that_devices_run_as_it_is(
    folder: Path, digits: Digits, key: PrivateKey
) -> None:
    text = PICTURES.replace('["onnx-int8", "tflite-int8"]', '["onnx-as-is"]')
    assert "devices do not run it" in refused(digits.model, text, folder, key).message


def test_the_same_recipe_with_steps_gives_the_same_bytes(
    seen: Built, folder: Path, digits: Digits, key: PrivateKey
) -> None:
    again = build(
        digits.model,
        parse_recipe(PICTURES, folder=folder),
        out=folder / "again",
        model="seen",
        version=1,
        key=key,
        created=CREATED,
        cache=None,
    )
    assert again.manifest == seen.manifest
    roles = {file.role for file in again.manifest.files}
    assert roles == {*Role} - {Role.WEIGHTS, Role.VOCABULARY}


WORDS = """
targets = ["onnx-as-is"]
[data]
held_out = "words.npz"
labels = "kinds.txt"

[[before]]
step = "words"
inputs = ["text"]
length = 8
file = "words/vocab.txt"

[[after]]
step = "softmax"

[[after]]
step = "top_k"
k = 1

[measure]
enabled = false
"""


def test_a_vocabulary_travels_with_a_model_whose_batch_is_fixed(
    key: PrivateKey, tmp_path: Path
) -> None:
    texts, truth = messages()
    vocabulary = ["[PAD]", "[UNK]", *sorted({w for t in texts for w in t.lower()[:-1].split()})]
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "vocab.txt").write_text("".join(f"{word}\n" for word in vocabulary))
    (tmp_path / "kinds.txt").write_text("ham\nspam\n")
    lowered = np.array([text.lower() for text in texts])
    np.savez(tmp_path / "words.npz", text=lowered[:42], y=np.array(truth[:42]))
    onnx.save(word_counter(vocabulary, lowered.tolist(), truth), tmp_path / "words.onnx")
    recipe = parse_recipe(WORDS, folder=tmp_path)
    made = build(
        tmp_path / "words.onnx", recipe, out=tmp_path / "out", model="words", version=1, key=key
    )
    (variant,) = made.manifest.variants
    assert [(s.name, s.shape) for s in variant.inputs] == [("text", (4,))]
    assert [(s.name, s.shape) for s in variant.outputs] == [("label", (4, 1)), ("score", (4, 1))]
    assert made.manifest.file("steps/vocab.txt").role is Role.VOCABULARY
    (told,) = made.report.variants
    assert told.accuracy is not None
    assert told.accuracy.value > 0.9
    assert told.golden_vectors == 16
    report = tried(made.path, made.manifest, "onnx-as-is")
    assert isinstance(report, TrialReport), report


def word_counter(vocabulary: list[str], texts: list[str], truth: list[str]) -> onnx.ModelProto:
    """Ids [4, 8] -> two scores: the log odds of each word, counted in the texts, added up."""
    odds = np.ones((len(vocabulary), 2))
    for text, kind in zip(texts, truth, strict=True):
        for word in text[:-1].split():
            odds[vocabulary.index(word), int(kind == "spam")] += 1
    table = np.log(odds / odds.sum(1, keepdims=True)).astype(np.float32)
    table[:2] = 0
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Gather", ["table", "ids"], ["each"]),
            onnx.helper.make_node("ReduceSum", ["each", "axis"], ["scores"], keepdims=0),
        ],
        "words",
        [onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, [4, 8])],
        [onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [4, 2])],
        [
            onnx.numpy_helper.from_array(table, "table"),
            onnx.numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
    )
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9
    )


def test_variants_that_clients_could_tell_apart_are_refused(seen: Built) -> None:
    first, second = seen.manifest.variants
    renamed = replace(second, outputs=(replace(second.outputs[0], name="name"), second.outputs[1]))
    refuse_unlike((first, second))
    with pytest.raises(OperatorError, match=r"onnx-int8 gives label .*, tflite-int8 gives name"):
        refuse_unlike((first, renamed))
