"""Files that frameworks saved: what each is taken for, and what is refused before it is loaded."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.foreign import refuse_code
from edgefleet_converter.sources import archive as zips
from edgefleet_converter.sources.kind import Kind, recognise

SAVED = Path(__file__).parents[1] / "vectors" / "sources"
KINDS = {
    "exported.pt2": Kind.TORCH_EXPORT,
    "script.pt": Kind.TORCH_SCRIPT,
    "pickled.pt": Kind.TORCH_MODULE,
    "legacy.pt": Kind.TORCH_MODULE,
    "weights.pt": Kind.TORCH_WEIGHTS,
    "model.keras": Kind.KERAS,
    "model.h5": Kind.KERAS_H5,
    "saved_model": Kind.SAVED_MODEL,
    "xgboost-classes.json": Kind.XGBOOST_JSON,
    "xgboost-classes.ubj": Kind.XGBOOST_UBJ,
    "lightgbm-classes.txt": Kind.LIGHTGBM,
}
FILES = {name: (SAVED / name).read_bytes() for name in KINDS if (SAVED / name).is_file()}


class Harm:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def rewritten(source: Path, to: Path, members: dict[str, bytes]) -> Path:
    """A ZIP with members put in, or put in the place of others that end alike."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(to, "w") as new:
        names = old.namelist()
        for name in names:
            wanted = next((raw for end, raw in members.items() if name.endswith(end)), None)
            new.writestr(name, old.read(name) if wanted is None else wanted)
        top = names[0].partition("/")[0]
        for end, raw in members.items():
            if not any(name.endswith(end) for name in names):
                new.writestr(f"{top}/{end}", raw)
    return to


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_a_file_of_a_framework_is_told_by_its_content(
    name: str, kind: Kind, tmp_path: Path
) -> None:
    copy = tmp_path / "model.bin"
    (shutil.copytree if (SAVED / name).is_dir() else shutil.copyfile)(SAVED / name, copy)
    assert recognise(copy) is kind


def test_a_name_of_a_function_is_a_factory_unless_there_is_such_a_file(tmp_path: Path) -> None:
    assert recognise(Path("package.module:make")) is Kind.FACTORY
    for name in ("module:", ":make", "a b:c", "module:make()", "model.onnx"):
        with pytest.raises(OperatorError, match="No such file"):
            recognise(Path(name))


def test_weights_alone_are_not_a_model() -> None:
    with pytest.raises(OperatorError, match="weights alone") as caught:
        recognise(SAVED / "only.weights.h5")
    assert "model.save" in caught.value.hint
    with pytest.raises(OperatorError, match="state dict") as caught:
        refuse_code(SAVED / "weights.pt", Kind.TORCH_WEIGHTS, trust_pickle=True)
    assert "module:function" in caught.value.hint


@pytest.mark.parametrize("name", ["pickled.pt", "legacy.pt"])
def test_a_pickled_module_needs_a_word_of_trust(name: str) -> None:
    path = SAVED / name
    with pytest.raises(OperatorError, match="runs whatever code is in it") as caught:
        refuse_code(path, recognise(path), trust_pickle=False)
    assert "torch.export.save" in caught.value.hint
    refuse_code(path, recognise(path), trust_pickle=True)


def test_a_pickle_hidden_in_an_exported_program_is_found(tmp_path: Path) -> None:
    source, mark = SAVED / "exported.pt2", tmp_path / "mark"
    saved = io.BytesIO()
    with zipfile.ZipFile(saved, "w") as inner:
        inner.writestr("x/data.pkl", pickle.dumps(Harm(mark)))
    config = json.dumps({"config": {"weight": {"path_name": "weight_0", "use_pickle": True}}})
    hidden = {
        "sample_inputs/model.pt": saved.getvalue(),
        "data/constants/opaque_obj_0": pickle.dumps(Harm(mark)),
        "data/constants/custom_obj_0": b"",
        "model_weights_config.json": config.encode(),
    }
    refuse_code(source, Kind.TORCH_EXPORT, trust_pickle=False)
    for member, raw in hidden.items():
        path = rewritten(source, tmp_path / "m.pt2", {member: raw})
        assert recognise(path) is Kind.TORCH_EXPORT
        with pytest.raises(OperatorError, match=member.rpartition("/")[2]):
            refuse_code(path, Kind.TORCH_EXPORT, trust_pickle=False)
    assert not mark.exists()


def test_the_spelling_of_a_flag_hides_nothing(tmp_path: Path) -> None:
    config = b'{"config": {"weight": {"path_name": "weight_0", "use_pickle"  :\ttrue}}}'
    path = rewritten(
        SAVED / "exported.pt2", tmp_path / "m.pt2", {"model_weights_config.json": config}
    )
    with pytest.raises(OperatorError, match="model_weights_config"):
        refuse_code(path, Kind.TORCH_EXPORT, trust_pickle=False)


def test_a_layer_that_is_code_is_refused_before_anything_loads_it(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"holds code of its author \(Lambda\)"):
        refuse_code(SAVED / "lambda.keras", Kind.KERAS, trust_pickle=True)
    refuse_code(SAVED / "model.keras", Kind.KERAS, trust_pickle=False)
    config = json.loads(zips.look_into(SAVED / "model.keras").text("config.json"))
    config["config"]["layers"][0]["module"] = "os"
    path = rewritten(
        SAVED / "model.keras", tmp_path / "m", {"config.json": json.dumps(config).encode()}
    )
    with pytest.raises(OperatorError, match=r"\(os\.InputLayer\)"):
        refuse_code(path, Kind.KERAS, trust_pickle=False)


@pytest.mark.parametrize("raw", [b"", b"{", b"[" * 100_000, b"\xff"])
def test_a_configuration_that_is_no_json_is_refused(raw: bytes, tmp_path: Path) -> None:
    path = rewritten(SAVED / "model.keras", tmp_path / "m", {"config.json": raw})
    with pytest.raises(OperatorError):
        refuse_code(path, Kind.KERAS, trust_pickle=False)


def test_an_archive_that_unpacks_to_too_much_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b"{}")
        archive.writestr("metadata.json", bytes(40_000_000))
    raw = bytearray(path.read_bytes())
    declared = raw.rfind((40_000_000).to_bytes(4, "little"))
    raw[declared : declared + 4] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(OperatorError, match="would unpack to"):
        recognise(path)


def test_a_text_of_an_archive_is_read_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zips, "MAX_TEXT", 1000)
    path = rewritten(SAVED / "model.keras", tmp_path / "m", {"config.json": b"[" + b" " * 2000})
    with pytest.raises(OperatorError, match="more than"):
        refuse_code(path, Kind.KERAS, trust_pickle=False)


def test_a_saved_model_with_a_link_in_it_is_refused(tmp_path: Path) -> None:
    shutil.copytree(SAVED / "saved_model", tmp_path / "m")
    (tmp_path / "m" / "assets").mkdir(exist_ok=True)
    (tmp_path / "m" / "assets" / "words").symlink_to("/etc/passwd")
    with pytest.raises(OperatorError, match="holds a link, words"):
        recognise(tmp_path / "m")


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(".ubj")])
def test_a_file_that_was_cut_short_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(FILES[name][: len(FILES[name]) // 16])
    if name == "legacy.pt":  # recognised; its library says that it is damaged
        assert recognise(path) is KINDS[name]
        return
    with pytest.raises(OperatorError, match=r"damaged|without its end|without a model_config"):
        recognise(path)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_no_damage_makes_the_recogniser_stumble(data: st.DataObject, tmp_path: Path) -> None:
    name = data.draw(st.sampled_from(sorted(FILES)))
    raw = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "m"
    path.write_bytes(raw[: data.draw(st.integers(1, len(raw)))])
    with contextlib.suppress(OperatorError):
        refuse_code(path, recognise(path), trust_pickle=False)
