from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgefleet_agent.ports import Choice, Failed
from edgefleet_agent.runtime.choice import choose
from edgefleet_contract.bundle import Format
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.reasons import Reason
from edgefleet_converter.fitting import Fit, Needs, Operator, fit
from edgefleet_converter.hardware import BOARDS, HardwareClass
from edgefleet_converter.pipeline import Built
from edgefleet_converter.recipe import parse_recipe
from edgefleet_converter.tflite_runtime_operators import NEWEST
from edgefleet_converter.variants import RUNTIMES
from tests.converter.conftest import CREATED, Digits, build
from tests.converter.models import examples, mlp, save

DATA = '[data]\ncalibration = "calibration.npy"\nheld_out = "held_out.npz"\n'
OLD = HardwareClass("armhf", {"tflite-runtime": "2.14.0"}, 512)
CONV = Needs((Operator("c1", "CONV_2D", 3), Operator("p", "SOFTMAX", 1)))
NEWER = Needs((*CONV.operators, Operator("f", "FULLY_CONNECTED", 12)))
ONNX = Needs(
    (Operator("Conv_1", "Conv", 11), Operator("LayerNorm_2", "LayerNormalization", 17)), 21
)


def fitted(kind: Format, needs: Needs, ram_mib: float = 0.0, **classes: HardwareClass) -> Fit:
    return fit(kind, needs, RUNTIMES[kind], classes, what="v", ram_mib=ram_mib)


def test_without_classes_a_variant_is_for_any_board() -> None:
    assert fitted(Format.ONNX, ONNX) == Fit({"onnxruntime": "1.19.0"}, ("any",))


def test_a_variant_is_for_the_processors_of_its_classes() -> None:
    found = fitted(Format.TFLITE, CONV, rpi4=BOARDS["rpi4"], zero2w=BOARDS["zero2w"], old=OLD)
    assert found.hw == ("arm64", "armhf")
    assert found.runtimes == {"litert": "2.0.0", "tflite-runtime": "2.14.0"}


def test_a_class_without_a_runtime_for_the_file_is_passed_over() -> None:
    assert fitted(Format.ONNX, ONNX, rpi4=BOARDS["rpi4"], old=OLD).hw == ("arm64",)


def test_a_runtime_that_lacks_an_operator_is_not_named() -> None:
    assert fitted(Format.TFLITE, NEWER).runtimes == {"litert": "2.0.0"}


@pytest.mark.parametrize(
    ("kind", "needs", "board", "says"),
    [
        (Format.TFLITE, NEWER, OLD, "node 'f' is FULLY_CONNECTED version 12"),
        (
            Format.TFLITE,
            Needs((Operator("s", "STABLEHLO_ADD", 1),)),
            OLD,
            "node 's' is STABLEHLO_ADD version 1, tflite-runtime has none",
        ),
        (
            Format.ONNX,
            ONNX,
            HardwareClass("arm64", {"onnxruntime": "1.16.3"}),
            "needs onnxruntime 1.19.0, it has 1.16.3",
        ),
        (
            Format.ONNX,
            ONNX,
            HardwareClass("arm64", {"onnxruntime": "1.20.0"}, max_opset=16),
            "opset 21, it has 16 at most; the newest operator is LayerNormalization of opset 17",
        ),
        (
            Format.ONNX,
            ONNX,
            HardwareClass("arm64", {"onnxruntime": "1.20.0"}, without=("Conv",)),
            "node 'Conv_1' is Conv, which it lacks",
        ),
        (
            Format.ONNX,
            ONNX,
            HardwareClass("arm64", {"onnxruntime": "1.20.0"}, operators=("Conv", "Relu")),
            "node 'LayerNorm_2' is LayerNormalization, which it lacks",
        ),
    ],
)
def test_a_variant_that_a_class_cannot_run_is_refused_by_name(
    kind: Format, needs: Needs, board: HardwareClass, says: str
) -> None:
    with pytest.raises(OperatorError) as caught:
        fitted(kind, needs, gate=board)
    assert says in caught.value.message
    assert "v: gate cannot run it" in caught.value.message


def test_one_runtime_of_a_class_is_enough() -> None:
    both = HardwareClass("arm64", {"tflite-runtime": "2.14.0", "litert": "2.1.0"})
    assert fitted(Format.TFLITE, NEWER, both=both).runtimes == {"litert": "2.0.0"}


def test_more_memory_than_the_board_has_is_refused() -> None:
    with pytest.raises(OperatorError, match="takes 600 MiB here, the board has 512"):
        fitted(Format.ONNX, ONNX, 600.0, zero2w=BOARDS["zero2w"])


def test_what_the_desk_writes_runs_on_the_oldest_tflite_runtime(built: Built) -> None:
    """Every TFLite variant of the demo names it, since each of its operators is in the table."""
    named = [v.runtimes for v in built.manifest.variants if v.format is Format.TFLITE]
    assert named == [{"litert": "2.0.0", "tflite-runtime": "2.14.0"}] * 2
    assert NEWEST["FULLY_CONNECTED"] == 10


def test_a_bundle_for_boards_is_taken_by_these_and_no_others(
    digits: Digits, key: PrivateKey, tmp_path: Path
) -> None:
    recipe = digits.recipe(
        "measure.enabled=false",
        'hardware.classes=["rpi4", "gate"]',
        'hardware.define.gate={hw="armhf", memory_mib=512, runtimes={tflite-runtime="2.14.0"}}',
        'targets=["onnx-int8", "tflite-int8"]',
    )
    manifest = build(
        digits.model, recipe, out=tmp_path, model="digits", version=3, key=key, created=CREATED
    ).manifest
    assert [variant.hw for variant in manifest.variants] == [("arm64",), ("arm64", "armhf")]
    pi = choose(manifest, {"onnxruntime": "1.19.0"}, "arm64")
    gate = choose(manifest, {"tflite-runtime": "2.14.0"}, "armhf")
    desk = choose(manifest, {"onnxruntime": "1.19.0"}, "x86-64")
    assert isinstance(pi, Choice)
    assert pi.variant.name == "onnx-int8"
    assert isinstance(gate, Choice)
    assert gate.variant.name == "tflite-int8"
    assert isinstance(desk, Failed)
    assert desk.reason is Reason.WRONG_HARDWARE


def test_a_real_file_is_refused_with_its_node(tmp_path: Path) -> None:
    source = save(mlp(), tmp_path, examples(40, 4))
    overrides = [
        "measure.enabled=false",
        'targets=["onnx-float32"]',
        'hardware.classes=["tiny"]',
        'hardware.define.tiny={hw="arm64", runtimes={onnxruntime="1.20.0"}, without=["Softmax"]}',
    ]
    recipe = parse_recipe(DATA, folder=tmp_path, overrides=overrides)
    with pytest.raises(OperatorError, match=r"onnx-float32: tiny cannot run it: node .* Softmax"):
        build(
            source,
            recipe,
            out=tmp_path / "out",
            model="m",
            version=1,
            key=PrivateKey.generate_p256(),
        )
    assert not (tmp_path / "out" / "m-1").exists()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ('hardware.classes=["rpi9"]', "'rpi9' is not known"),
        ('hardware.classes=["rpi4","rpi4"]', "names one twice"),
        ('hardware.define.a={hw="arm64", runtimes={}}', "runtimes: names none"),
        ('hardware.define.a={hw="arm64", runtimes={tvm="1.0"}}', "'tvm' is none of"),
        ('hardware.define.a={hw="arm64", runtimes={litert="new"}}', "version"),
        ('hardware.define.a={hw="A B", runtimes={litert="2.0.0"}}', "agents say"),
        (
            'hardware={classes=["a"], define={a={hw="armhf", runtimes={onnxruntime="1.19.0"}}}}',
            "a has no runtime for any of the targets",
        ),
    ],
)
def test_classes_that_are_none_are_refused(override: str, says: str) -> None:
    with pytest.raises(OperatorError, match=says):
        parse_recipe(DATA, folder=Path(), overrides=['targets=["tflite-int8"]', override])


def test_the_boards_are_those_of_the_specification() -> None:
    page = (Path(__file__).parents[2] / "docs" / "spec" / "recipe.md").read_text()
    for name, board in BOARDS.items():
        assert f"| `{name}` | `{board.hw}` | {board.memory_mib or '-'} |" in page
    assert np.all([board.runtimes == BOARDS["rpi4"].runtimes for board in BOARDS.values()])
