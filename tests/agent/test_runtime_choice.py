"""The choice of variant and runtime: a table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgefleet_agent.ports import Choice, Failed
from edgefleet_agent.runtime.choice import choose
from edgefleet_agent.runtime.engines import available
from edgefleet_contract.bundle import (
    BundleFile,
    Digest,
    Format,
    Limits,
    Manifest,
    Role,
    TensorSpec,
    Variant,
)
from edgefleet_contract.reasons import Reason

ZEROS = Digest("0" * 64)


def variant(kind: Format, hw: tuple[str, ...] = ("any",), **runtimes: str) -> Variant:
    named = {name.replace("_", "-"): version for name, version in runtimes.items()}
    x = TensorSpec("x", "float32", (-1, 4))
    return Variant(
        name=f"{kind}-int8",
        format=kind,
        precision="int8",
        model=f"{kind}/model.{kind}",
        golden=f"{kind}/golden.npz",
        max_abs_err_e6=0,
        inputs=(x,),
        outputs=(x,),
        runtimes=named,
        hw=hw,
    )


ONNX = variant(Format.ONNX, onnxruntime="1.19")
TFLITE = variant(Format.TFLITE, litert="2.0", tflite_runtime="2.14")


def manifest(*variants: Variant) -> Manifest:
    files = [
        BundleFile(path, role, 1, ZEROS, ZEROS)
        for v in variants
        for path, role in ((v.model, Role.MODEL), (v.golden, Role.GOLDEN))
    ]
    return Manifest("digits", 7, 0, "0.1.0", variants, tuple(sorted(files, key=lambda f: f.path)))


BOTH = manifest(ONNX, TFLITE)
ALL = {"onnxruntime": "1.32.0", "litert": "2.3.0", "tflite-runtime": "2.14.0"}


@pytest.mark.parametrize(
    ("engines", "preference", "wanted"),
    [
        (ALL, (), (ONNX, "onnxruntime")),
        (ALL, ("litert",), (TFLITE, "litert")),
        (ALL, ("tflite-runtime", "onnxruntime"), (TFLITE, "tflite-runtime")),
        ({"litert": "2.0.0"}, (), (TFLITE, "litert")),
        ({"litert": "2.0.0"}, ("onnxruntime",), (TFLITE, "litert")),
        ({"tflite-runtime": "2.14.0", "litert": "1.9"}, (), (TFLITE, "tflite-runtime")),
        ({"onnxruntime": "1.9.0", "litert": "2.3.0"}, (), (TFLITE, "litert")),
    ],
)
def test_the_publishers_order_stands_within_what_the_board_has(
    engines: dict[str, str], preference: tuple[str, ...], wanted: tuple[Variant, str]
) -> None:
    found = choose(BOTH, engines, "pi5", preference)
    assert isinstance(found, Choice)
    assert (found.variant, found.engine) == wanted


@pytest.mark.parametrize(
    ("engines", "preference", "why"),
    [
        (ALL, (), "the publisher's first choice fits"),
        (ALL, ("litert",), "litert is preferred here"),
        ({"litert": "2.0.0"}, (), "onnx-int8 needs onnxruntime 1.19"),
    ],
)
def test_a_choice_says_why(engines: dict[str, str], preference: tuple[str, ...], why: str) -> None:
    found = choose(BOTH, engines, "pi5", preference)
    assert isinstance(found, Choice)
    assert found.why == why


def test_a_variant_that_needs_more_memory_than_the_board_has_is_passed_over() -> None:
    large = replace(ONNX, limits={"pi5": Limits(ram_mib=900)})
    found = choose(manifest(large, TFLITE), ALL, "pi5", memory_mib=512)
    assert isinstance(found, Choice)
    assert found.variant == TFLITE
    assert found.why == "onnx-int8 takes up to 900 MiB, the board has 512"
    alone = choose(manifest(large), ALL, "pi5", memory_mib=512)
    assert isinstance(alone, Failed)
    assert alone.reason is Reason.NO_VARIANT
    assert isinstance(choose(manifest(large), ALL, "pi5", memory_mib=1_024), Choice)


def test_no_fitting_runtime_says_what_was_needed_and_what_is_there() -> None:
    assert choose(manifest(TFLITE), {"onnxruntime": "1.32.0"}, "pi5") == Failed(
        Reason.NO_VARIANT,
        "digits-7: tflite-int8 needs litert 2.0 or tflite-runtime 2.14;"
        " this board has onnxruntime 1.32.0",
    )
    failed = choose(BOTH, {}, "pi5")
    assert isinstance(failed, Failed)
    assert failed.detail.endswith("this board has no runtime")


def test_a_bundle_for_other_boards_is_the_wrong_hardware() -> None:
    other = manifest(replace(ONNX, hw=("pi4", "pi5")))
    failed = choose(other, ALL, "x86-64")
    assert failed == Failed(Reason.WRONG_HARDWARE, "digits-7 is for pi4, pi5; this board is x86-64")
    assert isinstance(choose(other, ALL, "pi4"), Choice)


def test_an_engine_never_gets_the_other_format() -> None:
    crossed = manifest(variant(Format.TFLITE, onnxruntime="1.0"))
    assert isinstance(choose(crossed, ALL, "pi5"), Failed)


def test_what_is_installed_here_is_found_without_importing_it() -> None:
    found = available()
    assert {"onnxruntime", "litert"} <= found.keys()
    assert all(version[0].isdigit() for version in found.values())
