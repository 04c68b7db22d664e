"""Bad input, by real files: what the command says, how it ends, and that nothing is left behind."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from edgefleet_contract.keys import PrivateKey
from edgefleet_converter.cli import run
from edgefleet_converter.pack import staging
from tests.converter.models import examples, graph, mlp, one, save, weights

CASES: list[tuple[str, Callable[[Path], str | None], tuple[str, ...], tuple[str, ...]]] = []
"""Name, what spoils a good folder (and names the model), what the error says, more options."""

Spoil = Callable[[Path], "str | None"]


def case(*says: str, options: tuple[str, ...] = ()) -> Callable[[Spoil], Spoil]:
    def add(spoil: Spoil) -> Spoil:
        CASES.append((spoil.__name__, spoil, says, options))
        return spoil

    return add


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "k.pem"
    PrivateKey.generate_p256().save(path)
    return path


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A model, its data and a recipe that are good."""
    save(mlp(), tmp_path, examples(32, 4))
    (tmp_path / "r.toml").write_text(
        'targets = ["onnx-float32"]\n[measure]\nenabled = false\n'
        '[data]\nheld_out = "held_out.npz"\ncalibration = "calibration.npy"\n'
    )
    return tmp_path


def words(desk: Path, key: Path, model: str, *options: str) -> list[str]:
    return [
        *("build", str(desk / model), "--recipe", str(desk / "r.toml"), "--key", str(key)),
        *("--out", str(desk / "out"), "--model", "m", "--version", "1", "--no-cache", *options),
    ]


@case("model.onnx is empty")
def an_empty_model(desk: Path) -> None:
    (desk / "model.onnx").write_bytes(b"")


@case("may be truncated")
def a_truncated_onnx_model(desk: Path) -> None:
    raw = (desk / "model.onnx").read_bytes()
    (desk / "model.onnx").write_bytes(raw[: len(raw) * 2 // 3])


@case("reading the ONNX model")
def a_garbled_onnx_model(desk: Path) -> None:
    """The weights' shapes say more than their bytes are."""
    model = mlp()
    model.graph.initializer[0].raw_data = b"\x00" * 3
    (desk / "model.onnx").write_bytes(model.SerializeToString())


@case("model")
def a_truncated_tflite_model(desk: Path) -> str:
    (desk / "m.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(range(200)))
    return "m.tflite"


@case("held-out data")
def a_truncated_npz(desk: Path) -> None:
    raw = (desk / "held_out.npz").read_bytes()
    (desk / "held_out.npz").write_bytes(raw[: len(raw) // 2])


@case("more than there is memory for")
def an_array_that_says_it_is_huge(desk: Path) -> None:
    head = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, "
    head += b"'shape': (1000000, 1000000), }"
    (desk / "held_out.npy").write_bytes(head.ljust(127) + b"\n" + bytes(64))
    (desk / "r.toml").write_text((desk / "r.toml").read_text().replace(".npz", ".npy"))


@case("held-out data")
def an_array_of_pickles(desk: Path) -> None:
    np.savez(desk / "held_out.npz", x=np.asarray([Payload(desk)] * 4, dtype=object))


@case("holds no examples")
def no_examples(desk: Path) -> None:
    np.savez(desk / "held_out.npz", x=np.zeros((0, 4), np.float32))


@case("line 3")
def a_csv_with_a_word_among_its_numbers(desk: Path) -> None:
    (desk / "held.csv").write_text("a,b,c,d\n1,2,3,4\n1,x,3,4\n")
    (desk / "r.toml").write_text((desk / "r.toml").read_text().replace("held_out.npz", "held.csv"))


@case("2.png")
def a_picture_that_is_none(desk: Path) -> None:
    (desk / "pics").mkdir()
    Image.new("RGB", (2, 2)).save(desk / "pics" / "1.png")
    (desk / "pics" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    (desk / "r.toml").write_text((desk / "r.toml").read_text().replace("held_out.npz", "pics"))


@case("reading the ONNX model")
def weights_that_claim_a_million_million_numbers(desk: Path) -> None:
    model = mlp()
    model.graph.initializer[0].dims[:] = [10**6, 10**6]
    (desk / "model.onnx").write_bytes(model.SerializeToString())


@case("MiB")
def a_graph_that_makes_a_million_million_numbers(desk: Path) -> None:
    shape = helper.make_tensor("s", TensorProto.INT64, [1], [10**12])
    made = graph(
        [
            helper.make_node("Constant", [], ["s"], name="size", value=shape),
            helper.make_node("ConstantOfShape", ["s"], ["z"], name="many"),
            helper.make_node("ReduceSum", ["z"], ["r"], name="sum", keepdims=0),
            one("Add", ["x", "r"]),
        ],
        shape=["batch", 4],
        gives=["batch", 4],
    )
    onnx.save(made, desk / "model.onnx")


@case("are in another file", "save it as one file")
def weights_in_a_file_outside(desk: Path) -> None:
    model = mlp()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    (desk / "model.onnx").write_bytes(model.SerializeToString())


@case("is a pickle", "--trust-pickle")
def a_pickle(desk: Path) -> str:
    (desk / "m.pkl").write_bytes(pickle.dumps(Payload(desk)))
    return "m.pkl"


@case("Einsum (mix)", options=("--set", 'targets=["tflite-float32"]'))
def an_operator_that_tflite_has_not(desk: Path) -> None:
    node = helper.make_node("Einsum", ["x", "w"], ["y"], name="mix", equation="bi,ij->bj")
    made = graph([node], shape=["batch", 4], gives=["batch", 3], constants={"w": weights(4, 3)})
    onnx.save(made, desk / "model.onnx")


@case("NaN")
def answers_that_are_no_numbers(desk: Path) -> None:
    made = graph([one("Sqrt")], shape=["batch", 4], gives=["batch", 4])
    onnx.save(made, desk / "model.onnx")


@case("different lengths: x has 20, y has 19", "counts examples")
def truth_for_all_but_one(desk: Path) -> None:
    data = dict(np.load(desk / "held_out.npz"))
    np.savez(desk / "held_out.npz", x=data["x"][:20], y=np.zeros(19, np.int64))


@case("killed by SIGKILL")
def a_worker_that_is_killed(desk: Path) -> None:
    (desk / "data.py").write_text(
        "import os, signal\ndef held():\n    os.kill(os.getpid(), signal.SIGKILL)\n    yield 1\n"
    )
    (desk / "r.toml").write_text((desk / "r.toml").read_text().replace("held_out.npz", "data:held"))


@case("needs more than 1024 MiB", "worker.memory_mib", options=("--set", "worker.memory_mib=1024"))
def a_worker_that_takes_all_memory(desk: Path) -> None:
    (desk / "data.py").write_text(
        "def held():\n    kept = bytearray(8 << 30)\n    yield len(kept)\n"
    )
    (desk / "r.toml").write_text((desk / "r.toml").read_text().replace("held_out.npz", "data:held"))


@case("exists already", "--version")
def a_bundle_that_is_there(desk: Path) -> None:
    (desk / "out" / "m-1").mkdir(parents=True)


class Payload:
    """What a pickle runs when it is loaded."""

    def __init__(self, desk: Path) -> None:
        self.mark = desk / "payload-ran"

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize(
    ("spoil", "says", "options"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_bad_input_is_refused_in_words_and_nothing_is_left(
    spoil: Spoil,
    says: tuple[str, ...],
    options: tuple[str, ...],
    desk: Path,
    key: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = spoil(desk) or "model.onnx"
    code = run(words(desk, key, model, *options))
    told = capsys.readouterr()
    assert (code, told.out) == (1, "")
    assert told.err.startswith("edge-convert: error: ")
    assert "Traceback" not in told.err
    lines = told.err.splitlines()
    assert all(line.startswith(("edge-convert: error: ", "edge-convert: hint: ")) for line in lines)
    for word in says:
        assert word in told.err
    left = [p.name for p in (desk / "out").rglob("*")] if (desk / "out").exists() else []
    assert left == (["m-1"] if "exists" in says[0] else [])
    assert not (desk / "payload-ran").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_nothing(number: int, desk: Path, key: Path) -> None:
    """The signal comes while a worker runs and the bundle is under way."""
    (desk / "data.py").write_text(
        f"import time, pathlib\ndef held():\n    pathlib.Path({str(desk / 'begun')!r}).touch()\n"
        "    time.sleep(600)\n    yield 1\n"
    )
    (desk / "r.toml").write_text((desk / "r.toml").read_text().replace("held_out.npz", "data:held"))
    command = [sys.executable, "-m", "edgefleet_converter", *words(desk, key, "model.onnx")]
    heard = signal.signal(number, signal.SIG_DFL)  # one that is ignored here would be so there
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    signal.signal(number, heard)
    until = time.monotonic() + 60
    while not (desk / "begun").exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told == "edge-convert: error: interrupted\nedge-convert: hint: nothing was written\n"
    assert not (desk / "out").exists()


def test_a_killed_build_leaves_a_folder_that_the_next_one_removes(tmp_path: Path) -> None:
    """What nobody has locked goes; what somebody works in stays."""
    left = tmp_path / ".m-1.abc"
    left.mkdir()
    os.utime(left, (1, 1))
    with staging(tmp_path, "m-1") as first:
        assert not left.exists()
        os.utime(first, (1, 1))
        with staging(tmp_path, "m-1") as second:
            assert first.is_dir()
            assert second.is_dir()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk_is_said_and_nothing_is_left(
    desk: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = desk / "out"
    out.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(out)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        code = run(words(desk, key, "model.onnx"))
        told = capsys.readouterr()
        assert list(out.iterdir()) == []
    finally:
        subprocess.run(["umount", str(out)], check=True)
    assert code == 1
    assert told.err.startswith("edge-convert: error: ")
    assert "No space left on device" in told.err
    assert "hint: room in --out, in TMPDIR and in the cache folder" in told.err
