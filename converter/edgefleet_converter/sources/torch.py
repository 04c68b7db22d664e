"""PyTorch in: a `torch.export` file, TorchScript, a factory, a trusted pickle. Worker tasks.

All but TorchScript become an exported program, from which ONNX and TFLite are made; TorchScript
goes the older way to ONNX. What comes out is named after the arguments of `forward`, and its batch
varies, unless a `torch.export` file has fixed it. A factory is a function of the user's that gives
the module with its weights; naming it is trusting it, as is `--trust-pickle`.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from torch.utils import _pytree as pytree

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Arrays, load_tensors, save_tensors
from edgefleet_converter.sources import exported
from edgefleet_converter.sources.kind import Kind
from edgefleet_converter.user_code import find_function, running, say, where

_TOOLS: Final = ("torch", "onnxscript", "litert-torch", "onnx")


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model that runs: how it is called, the names of what it takes, its batch if it is fixed."""

    module: Any
    inputs: tuple[str, ...]
    program: Any = None
    batch: int | None = None
    folder: Path | None = None
    """Where the code of the module lies, if it is the user's."""

    def call(self, inputs: Arrays) -> Arrays:
        own = running("the module", self.folder) if self.folder else nullcontext()
        with torch.no_grad(), own:
            given = self.module(*(torch.from_numpy(np.array(one)) for one in inputs))
        leaves = [one for one in pytree.tree_leaves(given) if isinstance(one, torch.Tensor)]
        return tuple(one.detach().cpu().contiguous().numpy() for one in leaves)


def read(*, kind: str, factory: str, search: str) -> dict[str, Json]:
    """The names of what the model in `source` takes, and the versions of what reads it."""
    loaded = _load(Kind(kind), factory, search)
    versions: dict[str, Json] = dict(exported.tools(*_TOOLS))
    return {"inputs": list(loaded.inputs), "tools": versions}


def convert(
    *, kind: str, factory: str, search: str, want_tflite: bool, more: bool
) -> dict[str, Json]:
    """`model.onnx`, `model.tflite` if it is wanted, and `outputs.npz`: the model's own answers.

    Those are to `inputs.npz`, and with `more` also to `more.npz`, as `more-outputs.npz`.
    """
    loaded = _load(Kind(kind), factory, search)
    inputs = load_tensors(Path("inputs.npz"), "input")
    if len(inputs) != len(loaded.inputs):
        raise OperatorError(
            f"the model takes {', '.join(loaded.inputs)}, the data has {len(inputs)} arrays"
        )
    answers = exported.answer_all(loaded.call, inputs, loaded.batch)
    save_tensors(Path("outputs.npz"), "output", answers)
    if more:
        others = load_tensors(Path("more.npz"), "input")
        found = exported.answer_all(loaded.call, others, loaded.batch)
        save_tensors(Path("more-outputs.npz"), "output", found)
    names = ["output"] if len(answers) == 1 else [f"output_{i}" for i in range(len(answers))]
    example = tuple(torch.from_numpy(exported.fill(one, loaded.batch or 2)) for one in inputs)
    with warnings.catch_warnings(action="ignore"):
        if kind == Kind.TORCH_SCRIPT:
            _script_to_onnx(loaded, example, names)
        else:
            _program_to_onnx(loaded.program or _export(loaded, example), loaded, names)
        if want_tflite:
            rows = loaded.batch or 1
            _to_tflite(loaded, tuple(torch.from_numpy(exported.fill(a, rows)) for a in inputs))
    return {"labels": []}


def _load(kind: Kind, factory: str, search: str) -> _Loaded:
    torch.manual_seed(0)
    if kind is Kind.TORCH_EXPORT:
        return _load_program()
    if kind is Kind.TORCH_SCRIPT:
        module = _opened("TorchScript", lambda: torch.jit.load("source", map_location="cpu"))
        names = [argument.name for argument in module.forward.schema.arguments[1:]]
        return _Loaded(module.eval(), tuple(names))
    module = _call(factory, search) if kind is Kind.FACTORY else _unpickled(search)
    if not isinstance(module, torch.nn.Module):
        raise OperatorError(
            f"{factory or 'the pickle'} gives a {type(module).__name__}, not a torch.nn.Module",
            hint="return the module, with its weights loaded",
        )
    return _Loaded(module.eval().cpu(), _arguments(module), folder=Path(search))


def _load_program() -> _Loaded:
    program = _opened("torch.export", lambda: torch.export.load("source"))
    names = tuple(str(name) for name in program.graph_signature.user_inputs)
    sizes = {
        node.name: node.meta["val"].shape
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names
    }
    first = next((sizes[name][0] for name in names if sizes.get(name)), None)
    batch = first if isinstance(first, int) else None
    return _Loaded(program.module(), names, program, batch)


def _opened(what: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # noqa: BLE001 - it may raise anything on a damaged file
        raise OperatorError(
            f"torch {torch.__version__} does not load the {what} file: {say(error)}",
            hint="it may be damaged, or saved by a newer torch: export it again",
        ) from None


def _call(factory: str, search: str) -> Any:
    made = find_function(factory, Path(search), what="factory")
    with running(f"factory {factory}", Path(search)):
        return made()


def _unpickled(search: str) -> Any:
    sys.path.insert(0, search)
    return _opened("pickled", lambda: torch.load("source", map_location="cpu", weights_only=False))


def _arguments(module: Any) -> tuple[str, ...]:
    needed = [
        parameter
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.default is inspect.Parameter.empty
    ]
    if not needed or any(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in needed):
        raise OperatorError(
            f"{type(module).__name__}.forward does not name what it takes",
            hint="def forward(self, image): … gives the model an input `image`",
        )
    return tuple(one.name for one in needed)


def _export(loaded: _Loaded, example: tuple[Any, ...]) -> Any:
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in example)
    try:
        return torch.export.export(loaded.module, example, dynamic_shapes=shapes)
    except Exception as error:  # noqa: BLE001 - its exceptions are many and private
        place = where(error, loaded.folder)[0] if loaded.folder else ""
        raise OperatorError(
            f"torch.export does not take the module{f' at {place}' if place else ''}: {say(error)}",
            hint="its code must not depend on values, nor fix how many examples come at once",
        ) from None


def _program_to_onnx(program: Any, loaded: _Loaded, names: list[str]) -> None:
    try:
        made = torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(loaded.inputs),
            output_names=names,
            opset_version=exported.OPSET,
            external_data=False,
            verbose=False,
        )
    except Exception as error:  # noqa: BLE001 - its exceptions are many and private
        raise OperatorError(f"torch.onnx does not export it: {say(error)}") from None
    assert made is not None
    _save(made.model_proto)


def _script_to_onnx(loaded: _Loaded, example: tuple[Any, ...], names: list[str]) -> None:
    axes = {name: {0: "batch"} for name in (*loaded.inputs, *names)}
    try:
        torch.onnx.export(
            loaded.module,
            example,
            "exported.onnx",
            dynamo=False,
            input_names=list(loaded.inputs),
            output_names=names,
            dynamic_axes=axes,
            opset_version=exported.OPSET,
        )
    except Exception as error:  # noqa: BLE001 - its exceptions are many and private
        raise OperatorError(
            f"torch.onnx does not export the TorchScript: {say(error)}",
            hint="save it by torch.export.save, or name a factory, module:function",
        ) from None
    _save(onnx.load("exported.onnx"))


def _save(model: onnx.ModelProto) -> None:
    exported.clean(model)
    exported.name_batch(model.graph)
    onnx.save(model, "model.onnx")


def _to_tflite(loaded: _Loaded, example: tuple[Any, ...]) -> None:
    import litert_torch

    try:
        litert_torch.convert(loaded.module, example).export("model.tflite")
    except Exception as error:  # noqa: BLE001 - its exceptions are many and private
        raise OperatorError(
            f"litert-torch does not convert it: {say(error)}",
            hint="take the tflite targets out of the recipe; the onnx targets need it not",
        ) from None
