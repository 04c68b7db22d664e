"""A program as a `Session`: one engine session for each model file, and steps between them.

Whoever holds a session need not know: the golden vectors hold what goes into the whole graph and
comes out of it, one trial measures it, and one swap changes it.

Who is to blame for an inference that fails: what no model ran before is the client's, all else the
publisher's, and so is a tensor of a dtype or rank that a model, or the variant, does not have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from edgefleet_agent.runtime.engine import Array, CannotLoad, CannotRun, Session, Tensors
from edgefleet_contract.bundle import TensorSpec, Variant
from edgefleet_contract.errors import Malformed
from edgefleet_contract.graph import MODEL, Node
from edgefleet_processing import BadInput, StepFailed, prepare
from edgefleet_processing.graph import Model, model_files, step_files

_TEXT: Final = "OUS"


class ProgramSession:
    """The program of a variant.

    Args:
        variant: what goes in and comes out, and the nodes.
        files: the models and what the steps need, by path; let go as they are opened.
        open_model: makes a session of a model's bytes.

    Raises:
        CannotLoad: naming the node.
    """

    def __init__(
        self, variant: Variant, files: dict[str, bytes], open_model: Callable[[bytes], Session]
    ) -> None:
        assert variant.program is not None
        nodes = variant.program.nodes
        self.inputs, self.outputs = variant.inputs, variant.outputs
        self._wanted = tuple(spec.name for spec in variant.outputs)
        try:
            self._graph = prepare(nodes, {path: files[path] for path in step_files(nodes)})
        except Malformed as error:
            raise CannotLoad(error.message) from error
        self._models: dict[str, Model] = {}
        for path in model_files(nodes):
            session = open_model(files.pop(path))
            for i, node in enumerate(nodes):
                if node.op == MODEL and node.file == path:
                    _check_node(node, i, session)
            self._models[path] = _model(session, path)

    def run(self, feeds: Tensors) -> Tensors:
        """See `Session.run`."""
        try:
            given = self._graph.run(feeds, self._wanted, self._models)
        except StepFailed as error:
            raise CannotRun(str(error), input_is_to_blame=error.input_is_to_blame) from error
        for spec in self.outputs:
            _check_output(given[spec.name], spec)
        return {name: np.asarray(array, order="C") for name, array in given.items()}


def _check_node(node: Node, number: int, session: Session) -> None:
    for what, named, has in (
        ("takes", node.inputs, session.inputs),
        ("gives", node.outputs, session.outputs),
    ):
        if len(named) != len(has):
            names = ", ".join(repr(spec.name) for spec in has)
            raise CannotLoad(
                f"node {number} (model) {what} {len(named)} tensors, {node.file} {what} {names}"
            )


def _model(session: Session, path: str) -> Model:
    """What runs a session by the places of its tensors."""

    def run(taken: tuple[Array, ...]) -> tuple[Array, ...]:
        feeds = {}
        for spec, array in zip(session.inputs, taken, strict=True):
            if _dtype(array) != spec.dtype or array.ndim != len(spec.shape):
                raise CannotRun(
                    f"{path} takes {spec.name!r} as {spec.dtype} {list(spec.shape)}, "
                    f"the program gives it {_dtype(array)} {list(array.shape)}"
                )
            feeds[spec.name] = np.asarray(array, order="C")
        try:
            given = session.run(feeds)
        except CannotRun as error:
            if error.input_is_to_blame:
                raise BadInput(f"{path}: {error}") from error
            raise
        return tuple(given[spec.name] for spec in session.outputs)

    return run


def _check_output(array: Array, spec: TensorSpec) -> None:
    """Hold what a program gave against what the variant declares."""
    fits = array.ndim == len(spec.shape) and all(
        want in (-1, have) for want, have in zip(spec.shape, array.shape, strict=True)
    )
    if not fits or _dtype(array) != spec.dtype:
        raise CannotRun(
            f"output {spec.name!r} is declared as {spec.dtype} {list(spec.shape)}, "
            f"the program gave {_dtype(array)} {list(array.shape)}"
        )


def _dtype(array: Array) -> str:
    return "string" if array.dtype.kind in _TEXT else array.dtype.name
