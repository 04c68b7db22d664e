"""The models of a join: bundles, verified and taken apart, or model files; as nodes of a graph.

A bundle that is a program comes in with its steps, as nodes of the larger graph: its tensors get
the name of the model in front.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgefleet_contract.bundle import Digest, Format, Role, Variant, sha256
from edgefleet_contract.directory import verify_directory
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.graph import MODEL, Node
from edgefleet_contract.keys import KeyRing
from edgefleet_contract.model_signature import VerifiedBundle
from edgefleet_converter.join_recipe import AskedModel, AskedNode, JoinRecipe
from edgefleet_converter.report import DataFile
from edgefleet_converter.targets import Precision

_IN_INTEGERS: Final = tuple(one.value for one in Precision if one.levels)
"""Precisions whose outputs move by a step of 8 bits, or less."""


@dataclass(frozen=True, slots=True)
class PartFile:
    """A file of a part: where it lies now, its role, the digest that was signed, if one was.

    `is_int8`: it is a model in 8-bit integers; None where nobody has said so yet.
    """

    path: Path
    role: Role
    sha256: Digest | None = None
    is_int8: bool | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A model of a join in one format. `files` by their paths in the joined bundle.

    `variant` is that of its bundle; None for a model file, which is `model` in the joined bundle.
    """

    name: str
    model: str
    files: Mapping[str, PartFile]
    variant: Variant | None = None
    places: Mapping[str, str] | None = None

    def nodes(self, asked: AskedNode, prefix: str) -> tuple[Node, ...]:
        """What stands in the graph for a node that runs it; inner tensors begin with `prefix`.

        Raises:
            OperatorError: the node has not as many tensors as the model.
        """
        if self.variant is None:
            return (Node(MODEL, asked.inputs, asked.outputs, self.model),)
        takes = tuple(spec.name for spec in self.variant.inputs)
        gives = tuple(spec.name for spec in self.variant.outputs)
        for what, mine, theirs in (
            ("takes", takes, asked.inputs),
            ("gives", gives, asked.outputs),
        ):
            if len(mine) != len(theirs):
                raise OperatorError(
                    f"models.{self.name} {what} {', '.join(mine)}; its node names "
                    f"{len(theirs)} tensors"
                )
        if self.variant.program is None:
            return (Node(MODEL, asked.inputs, asked.outputs, self.model),)
        outer = dict(zip((*takes, *gives), (*asked.inputs, *asked.outputs), strict=True))
        if len(outer) < len(takes) + len(gives):
            raise OperatorError(f"models.{self.name} gives one of its inputs back")
        places = self.places or {}

        def named(tensors: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(outer.get(tensor, f"{prefix}.{tensor}") for tensor in tensors)

        return tuple(
            Node(
                node.op,
                named(node.inputs),
                named(node.outputs),
                places.get(node.file, ""),
                dict(node.settings),
            )
            for node in self.variant.program.nodes
        )


@dataclass(frozen=True, slots=True)
class Parts:
    """The models of a join that were opened: bundles by name, and what each was made from."""

    bundles: Mapping[str, VerifiedBundle]
    materials: Mapping[str, DataFile]
    labels: tuple[str, ...]


def open_parts(wish: JoinRecipe, ring: KeyRing) -> Parts:
    """Every bundle, if a key of `ring` signed it and it is whole; every file, if it is there.

    Raises:
        OperatorError: one cannot be read.
        PeerError: a bundle is not what was signed, or is signed by a stranger.
    """
    bundles: dict[str, VerifiedBundle] = {}
    materials: dict[str, DataFile] = {}
    named: set[tuple[str, ...]] = set()
    for name, asked in wish.models.items():
        if asked.bundle:
            root = Path(wish.folder) / asked.bundle
            found = verify_directory(root, ring)
            bundles[name] = found
            materials[f"{name}: {found.manifest.name}"] = DataFile(
                found.digest, found.manifest.total_size
            )
            if found.manifest.labels is not None:
                text = (root / found.manifest.labels).read_text("utf-8")
                named.add(tuple(text.splitlines()))
            continue
        for kind in Format:
            if asked.file(kind):
                raw = _read(Path(wish.folder) / asked.file(kind))
                materials[f"{name}: {kind}"] = DataFile(sha256(raw), len(raw))
    return Parts(bundles, materials, named.pop() if len(named) == 1 else ())


def part_of(wish: JoinRecipe, parts: Parts, name: str, kind: Format) -> Part:
    """A model of the join in a format.

    Raises:
        OperatorError: it has no such variant, or one that cannot be joined.
    """
    asked = wish.models[name]
    model = f"{kind}/{name}.{kind}"
    if not asked.bundle:
        if not asked.file(kind):
            raise OperatorError(
                f"models.{name} has no {kind} file", hint=f"formats = […] without {kind}"
            )
        path = Path(wish.folder) / asked.file(kind)
        return Part(name, model, {model: PartFile(path, Role.MODEL)})
    manifest = parts.bundles[name].manifest
    variant = _variant(asked, manifest.variants, kind, name)
    if variant.program is not None and variant.program.is_stateful:
        raise OperatorError(
            f"models.{name}: {manifest.name} is stateful, which is served alone and not joined"
        )
    root = Path(wish.folder) / asked.bundle
    entries = {file.path: file for file in manifest.files_for(variant)}
    if any(file.role is Role.WEIGHTS for file in entries.values()):
        raise OperatorError(f"models.{name}: {variant.name} has weights in another file")
    places: dict[str, str] = {}
    files: dict[str, PartFile] = {}
    for i, inner in enumerate(variant.files):
        entry = entries[inner]
        is_model = entry.role is Role.MODEL
        place = f"steps/{name}-{inner.rpartition('/')[2]}"
        if is_model:
            place = model if inner == variant.model else f"{kind}/{name}-{i}.{kind}"
        is_int8 = is_model and variant.precision in _IN_INTEGERS
        places[inner] = place
        files[place] = PartFile(root / inner, entry.role, entry.sha256, is_int8)
    return Part(name, model, files, variant, places)


def _variant(asked: AskedModel, variants: tuple[Variant, ...], kind: Format, name: str) -> Variant:
    wanted = [one for one in variants if not asked.variants or one.name in asked.variants]
    found = next((one for one in wanted if one.format is kind), None)
    if found is None:
        raise OperatorError(
            f"models.{name}: {asked.bundle} has no {kind} variant"
            + (f" among {', '.join(asked.variants)}" if asked.variants else ""),
            hint=f"its variants: {', '.join(one.name for one in variants)}",
        )
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OperatorError(f"cannot read the model {path}: {error.strerror}") from None
