"""Structured pruning of a PyTorch model: channels are cut out, in steps, and trained after each.

A worker task for the toolchain. torch-pruning (Fang et al., "DepGraph: Towards Any Structural
Pruning", CVPR 2023; MIT) finds which layers have to lose a channel together and ranks channels by
the norm of their weights. The layers that make the outputs keep theirs. What is left is a smaller
model of the usual kind: it is smaller and faster on every runtime.

The factory and the function that trains are the user's: naming them is trusting them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
import torch_pruning

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import load_tensors
from edgefleet_converter.sources.onnx import STRUCTURED
from edgefleet_converter.user_code import find_function, running

OPSET: Final = 18

_MOVES: Final = ("TBackward", "TransposeBackward", "PermuteBackward", "ViewBackward")


def cut(
    *,
    factory: str,
    search: str,
    finetune: str,
    ratio: float,
    steps: int,
    round_to: int,
    max_accuracy_drop: float | None = None,
) -> dict[str, Json]:
    """`whole.onnx` and `cut.onnx` of the model that the factory gives, for `inputs.npz`.

    With a `max_accuracy_drop`, which is held elsewhere, there is `cut.1.onnx` … after each step
    instead of the one file at the end. Returns the parameters and the multiply-adds of one example,
    `before` and after each file that was written.
    """
    place = Path(search)
    make = find_function(factory, place, what="factory")
    with running(f"factory {factory}", place):
        model = make()
    if not isinstance(model, torch.nn.Module):
        raise OperatorError(f"{factory} gave a {type(model).__name__}, not a torch.nn.Module")
    key = "prune.structured.finetune"
    train = find_function(finetune, place, what=key) if finetune else None
    inputs = load_tensors(Path("inputs.npz"), "input")
    example = tuple(torch.from_numpy(np.array(np.resize(a, (2, *a.shape[1:])))) for a in inputs)
    model.eval()
    gives = _shapes(model, example)
    before = _size(model, example)
    _export(model, example, "whole.onnx", None)
    pruner = torch_pruning.pruner.BasePruner(
        model,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        iterative_steps=steps,
        round_to=round_to,
        ignored_layers=_last_layers(model, example),
    )
    wish: dict[str, Json] = {
        "finetune": finetune,
        "ratio": ratio,
        "round_to": round_to,
        "steps": steps,
    }
    if max_accuracy_drop is not None:
        wish["max_accuracy_drop"] = max_accuracy_drop
    stamp = json.dumps(wish, sort_keys=True)
    after: list[Json] = []
    for step in range(1, steps + 1):
        pruner.step()
        if train is not None:
            with running(f"{key} {finetune}", place):
                train(model)
            model.eval()
        if max_accuracy_drop is None and step < steps:
            continue
        if _shapes(model, example) != gives:
            raise OperatorError(f"cutting channels changed the outputs of {factory}")
        after.append(_size(model, example))
        name = "cut.onnx" if max_accuracy_drop is None else f"cut.{step}.onnx"
        _export(model, example, name, stamp)
    if _size(model, example)["parameters"] == before["parameters"]:
        raise OperatorError(
            f"nothing was cut: no layer of {factory} has channels to spare at this ratio"
        )
    return {"before": before, "after": after}


def _last_layers(model: Any, example: tuple[Any, ...]) -> list[Any]:
    """The modules whose weights an output reaches first, going back through what was computed."""
    weights: set[int] = set()
    seen: set[Any] = set()
    todo = [output.grad_fn for output in _outputs(model(*example))]
    while todo:
        step = todo.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        before = [one for one, _ in step.next_functions]
        own = {id(w) for one in before if (w := _weight(one)) is not None and w.dim() >= 2}
        if own:
            weights |= own
        else:
            todo += before
    return [
        module
        for module in model.modules()
        if any(id(one) in weights for one in module.parameters(recurse=False))
    ]


def _weight(step: Any) -> Any:
    """The parameter that a step of the backward graph leads to by moves of axes alone."""
    while step is not None and type(step).__name__.rstrip("0123456789") in _MOVES:
        step = step.next_functions[0][0]
    return getattr(step, "variable", None)


def _outputs(given: Any) -> list[Any]:
    leaves = torch.utils._pytree.tree_leaves(given)
    return [one for one in leaves if isinstance(one, torch.Tensor)]


def _shapes(model: Any, example: tuple[Any, ...]) -> list[tuple[int, ...]]:
    with torch.no_grad():
        return [tuple(one.shape) for one in _outputs(model(*example))]


def _size(model: Any, example: tuple[Any, ...]) -> dict[str, Json]:
    one = tuple(tensor[:1] for tensor in example)
    operations, parameters = torch_pruning.utils.count_ops_and_params(model, one)
    return {"multiply_adds": round(operations), "parameters": round(parameters)}


def _export(model: Any, example: tuple[Any, ...], name: str, stamp: str | None) -> None:
    batch = torch.export.Dim("batch")
    names = ["input"] if len(example) == 1 else [f"input_{i}" for i in range(len(example))]
    program = torch.onnx.export(
        model,
        example,
        dynamo=True,
        opset_version=OPSET,
        input_names=names,
        dynamic_shapes=tuple({0: batch} for _ in example),
        external_data=False,
    )
    assert program is not None  # dynamo=True gives one
    made = program.model_proto
    for node in made.graph.node:  # where in the user's code each node comes from
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    if stamp is not None:
        made.metadata_props.add(key=STRUCTURED, value=stamp)
    onnx.save(made, name)
