"""Models of frameworks that are large: read and converted in the toolchain's environment.

    source ── toolchain's worker ──▶ answers, float ONNX, float TFLite where the way is exact

The answers are the source's own, by its framework; the copies are run afterwards by the runtimes
that devices have, in an environment that knows nothing of the framework.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Arrays, load_tensors, save_tensors
from edgefleet_converter.bench import CALIBRATION, HELD_OUT, Bench, texts
from edgefleet_converter.digests import describe
from edgefleet_converter.examples import Examples
from edgefleet_converter.feeding import lay_out
from edgefleet_converter.report import DataFile
from edgefleet_converter.search.cache import Cache
from edgefleet_converter.sources import archive as zips
from edgefleet_converter.sources.kind import Kind

MORE: Final = "more.npz"
"""The calibration examples on which copies are held against their source beside the held-out."""

MAX_MORE: Final = 512

_TORCH = (Kind.TORCH_EXPORT, Kind.TORCH_SCRIPT, Kind.TORCH_MODULE, Kind.FACTORY)
_TENSORFLOW = (Kind.KERAS, Kind.KERAS_H5, Kind.SAVED_MODEL)
_BOOST = (Kind.XGBOOST_JSON, Kind.XGBOOST_UBJ, Kind.LIGHTGBM)
FAMILIES: Final = (
    dict.fromkeys(_TORCH, "torch")
    | dict.fromkeys(_TENSORFLOW, "tensorflow")
    | dict.fromkeys(_BOOST, "boost")
)
_NO_TFLITE: Final = (Kind.TORCH_SCRIPT, *_BOOST)
_TREES_TAKE: Final = "input"


@dataclass(frozen=True, slots=True)
class Converted:
    """A source's answers to both kinds of data, and its copies. `more` is empty without any."""

    onnx: Path
    tflite: Path | None
    held_out: Arrays
    more: Arrays
    named: tuple[str, ...]
    tools: dict[str, str]


def convert_foreign(
    bench: Bench,
    source: Path,
    kind: Kind,
    *,
    calibration: Examples | None,
    held_out: Examples,
    want_tflite: bool,
) -> Converted:
    """The float copies of a source, with the answers that they have to give.

    The TFLite file still has the names of its framework.

    Raises:
        OperatorError: a library is missing, the file is damaged, or the framework refuses it.
    """
    family = FAMILIES[kind]
    files = {} if kind is Kind.FACTORY else {"source": source}
    what = f"{kind} model"
    bench = bench if _is_data(source, kind) else replace(bench, cache=Cache(None))
    params: dict[str, Json] = {"kind": kind.value}
    names: tuple[str, ...] = (_TREES_TAKE,)
    tools: dict[str, str] = {}
    if family == "torch":
        params |= {
            "factory": str(source) if kind is Kind.FACTORY else "",
            "search": str(Path.cwd()),
        }
    if family != "boost":
        says = bench.foreign_task(f"{family}_read", f"reading the {what}", files, {}, **params)
        names, tools = texts(says["inputs"]), versions(says["tools"])
        params["want_tflite"] = want_tflite and kind not in _NO_TFLITE
    lay_out(bench, calibration, held_out, names)
    more = _more(bench, calibration)
    scratch = bench.scratch
    files |= {"inputs.npz": scratch / HELD_OUT} | ({"more.npz": scratch / MORE} if more else {})
    wanted = {"model.onnx": scratch / "source.onnx", "outputs.npz": scratch / "outputs.npz"}
    if more:
        wanted["more-outputs.npz"] = scratch / "more-outputs.npz"
    if params.get("want_tflite"):
        wanted["model.tflite"] = scratch / "source.tflite"
    says = bench.foreign_task(
        f"{family}_convert", f"converting the {what}", files, wanted, **params, more=more
    )
    return Converted(
        wanted["model.onnx"],
        wanted.get("model.tflite"),
        load_tensors(wanted["outputs.npz"], "output"),
        load_tensors(wanted["more-outputs.npz"], "output") if more else (),
        texts(says["labels"]),
        tools | versions(says.get("tools", {})),
    )


def name_tflite(
    bench: Bench, path: Path, inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> Path:
    """The TFLite file of a framework, under the names of its ONNX twin."""
    named = bench.scratch / "model.tflite"
    bench.task(
        "name_tflite",
        "naming the TFLite tensors",
        {"exported.tflite": path},
        {"model.tflite": named},
        takes=list(inputs),
        gives=list(outputs),
    )
    return named


def refuse_code(source: Path, kind: Kind, *, trust_pickle: bool) -> None:
    """Refuse a file that would run code of its author while it loads, and weights without a model.

    Raises:
        OperatorError: saying what to do.
    """
    if kind is Kind.TORCH_WEIGHTS:
        raise OperatorError(
            f"{source} is a state dict of PyTorch: weights, and no model that they belong to",
            hint="name a function that makes the module and loads them: module:function",
        )
    if kind is Kind.KERAS:
        zipped = zips.look_into(source)
        zips.refuse_keras_code(zipped.text("config.json"), str(source))
    if trust_pickle:
        return
    if kind is Kind.TORCH_MODULE:
        raise OperatorError(
            f"{source} is a pickled module of PyTorch, and loading it runs whatever code is in it",
            hint="save it by torch.export.save(torch.export.export(model, …), 'm.pt2'), or say "
            "--trust-pickle if the file is yours",
        )
    if kind is Kind.TORCH_EXPORT and (name := zips.exported_code(zips.look_into(source))):
        raise OperatorError(
            f"{source} holds a pickle that may be any code ({name})",
            hint="export it with plain tensors, or say --trust-pickle if the file is yours",
        )


def describe_source(source: Path, kind: Kind, exported: Path) -> DataFile:
    """Digest and size of what came in; of a factory, which is code, of the ONNX that it gave."""
    return describe(exported if kind is Kind.FACTORY else source)


def _is_data(source: Path, kind: Kind) -> bool:
    """Whether a source is all data: what code gives follows from more than the file."""
    if kind is Kind.TORCH_EXPORT:
        return not zips.exported_code(zips.look_into(source))
    return kind not in (Kind.FACTORY, Kind.TORCH_MODULE)


def _more(bench: Bench, calibration: Examples | None) -> bool:
    """Put some calibration examples where the workers take them from, if there are any."""
    if calibration is None:
        return False
    fed = load_tensors(bench.scratch / CALIBRATION, "input")
    save_tensors(bench.scratch / MORE, "input", [array[:MAX_MORE] for array in fed])
    return True


def versions(value: Json) -> dict[str, str]:
    """Names and versions that a worker returned."""
    found = value if isinstance(value, dict) else {}
    return {name: str(version) for name, version in found.items()}
