"""What a bundle says about itself: `bundle.json`, and how it is read and written.

A bundle is a directory `<model>-<version>/` of content-addressed files. `bundle.json` names every
file with its size, its SHA-256 and the SHA-256 of its chunk list; `model.sig` signs them all. Each
variant (one model file for one runtime) has a folder of its own, so that a device fetches only the
variant that fits it. Format: docs/spec/bundle.md.

Laws: `parse_manifest(render_manifest(m)) == m`; `render_manifest(parse_manifest(raw)) == raw`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, NewType

from edgefleet_contract import canonical, codec
from edgefleet_contract.errors import Malformed
from edgefleet_contract.graph import MODEL, Program, check_graph

Digest = NewType("Digest", str)
"""Lower-case hex SHA-256."""

SCHEMA: Final = "edgefleet.bundle/1"
MANIFEST: Final = "bundle.json"
SIGNATURE: Final = "model.sig"
CHUNK_SIZE: Final = 65536
MAX_FILES: Final = 256
MAX_FILE_SIZE: Final = 4 * 1024**3
ANY_HARDWARE: Final = "any"

_COMPONENT = re.compile(r"[a-z0-9._-]{1,64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[0-9]{1,5}(\.[0-9]{1,5}){0,2}")
_DTYPES: Final = frozenset(
    {
        *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
        *("float16", "float32", "float64", "string"),
    }
)


class Format(StrEnum):
    """The kinds of model file that a device runs."""

    ONNX = "onnx"
    TFLITE = "tflite"


class Role(StrEnum):
    """What a file of a bundle is for."""

    MODEL = "model"
    WEIGHTS = "weights"
    GOLDEN = "golden"
    LABELS = "labels"
    VOCABULARY = "vocabulary"
    REPORT = "report"
    SBOM = "sbom"
    PROVENANCE = "provenance"
    DRIFT = "drift"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named input or output: dtype, and shape with -1 for a dimension that may vary.

    `dtype` is NumPy's name (`float32`, `int8`, …) or `string`.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise Malformed(f"tensor {self.name!r}: unknown dtype {self.dtype!r}")
        if any(size < -1 for size in self.shape):
            raise Malformed(f"tensor {self.name!r}: shape {list(self.shape)}")


@dataclass(frozen=True, slots=True)
class Limits:
    """The signed envelope of one hardware class; 0 means not limited.

    `ram_mib`: peak resident memory of the process over its empty size, MiB. `load_ms`: load to
    first answer, ms. `p95_us`: 95th percentile of one inference, µs.
    """

    ram_mib: int = 0
    load_ms: int = 0
    p95_us: int = 0


@dataclass(frozen=True, slots=True)
class Variant:
    """One model file for one runtime, with what it takes, gives and must reproduce.

    `golden` is a `.npz` with arrays `input.0 …` and `output.0 …`, in the order of `inputs` and
    `outputs`; an output may differ from its golden value by `max_abs_err_e6` millionths.
    `runtimes` maps a runtime's name to the lowest version that runs the file. `limits` is keyed by
    hardware class.

    Without a `program` the model takes `inputs` and gives `outputs`. With one, these are what goes
    into the graph and comes out of it, and what the golden vectors hold; `model` is the first model
    in it.

    `drift` is the path of what was counted when it was built [bundle-11]. `optimized_for` is the
    hardware class whose runtime's passes the file has behind it: it is loaded without them.
    """

    name: str
    format: Format
    precision: str
    model: str
    golden: str
    max_abs_err_e6: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    runtimes: dict[str, str]
    hw: tuple[str, ...] = (ANY_HARDWARE,)
    limits: dict[str, Limits] = field(default_factory=dict)
    program: Program | None = None
    drift: str | None = None
    optimized_for: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of what it is made of: its model or models, and what its steps need."""
        nodes = self.program.nodes if self.program else ()
        return tuple(dict.fromkeys((self.model, *(node.file for node in nodes if node.file))))

    @property
    def is_stateful(self) -> bool:
        """Whether an answer depends on what was asked before."""
        return self.program is not None and self.program.is_stateful

    @property
    def public_inputs(self) -> tuple[TensorSpec, ...]:
        """What clients send: the inputs, less the state."""
        state = {pair.input for pair in self.program.state} if self.program else set()
        return tuple(spec for spec in self.inputs if spec.name not in state)

    @property
    def public_outputs(self) -> tuple[TensorSpec, ...]:
        """What clients get: the outputs, less the state."""
        state = {pair.output for pair in self.program.state} if self.program else set()
        return tuple(spec for spec in self.outputs if spec.name not in state)


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file: its place, its role, and what its bytes must hash to."""

    path: str
    role: Role
    size: int
    sha256: Digest
    chunk_list_sha256: Digest

    def chunks(self) -> int:
        """How many chunks the file has: an empty file has none."""
        return -(-self.size // CHUNK_SIZE)


@dataclass(frozen=True, slots=True)
class Manifest:
    """`bundle.json`, parsed and checked, but vouched for by nobody yet.

    `created` is seconds since 1970; `version` rises strictly per model; `labels` is the path of a
    file with one class name a line, or absent. Variants stand in the publisher's order of
    preference.
    """

    model: str
    version: int
    created: int
    agent_min: str
    variants: tuple[Variant, ...]
    files: tuple[BundleFile, ...]
    labels: str | None = None
    chunk_size: int = CHUNK_SIZE
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        _check_manifest(self)

    @property
    def name(self) -> str:
        """`<model>-<version>`: the directory, and the subject of the signature."""
        return f"{self.model}-{self.version}"

    def file(self, path: str) -> BundleFile:
        """The entry of a path that the manifest names."""
        return next(file for file in self.files if file.path == path)

    def files_for(self, variant: Variant) -> tuple[BundleFile, ...]:
        """What a device that runs `variant` needs: its parts, golden vectors, drift, labels."""
        prefix = variant.model.rpartition("/")[0] + "/"
        return tuple(
            file
            for file in self.files
            if file.path in (*variant.files, variant.golden, variant.drift, self.labels)
            or (file.role is Role.WEIGHTS and file.path.startswith(prefix))
        )

    @property
    def total_size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def parse_manifest(raw: bytes, *, what: str = MANIFEST) -> Manifest:
    """The manifest in canonical bytes.

    Raises:
        Malformed: naming the field and what was found there.
    """
    value = canonical.parse(raw, what=what)
    if isinstance(value, dict) and value.get("schema") != SCHEMA:
        raise Malformed(f"{what}: schema {value.get('schema')!r}, {SCHEMA!r} is read here")
    return codec.decode(Manifest, value, what=what)


def render_manifest(manifest: Manifest) -> bytes:
    """The canonical bytes of a manifest."""
    return canonical.render(codec.encode(manifest))


def sha256(raw: bytes | memoryview) -> Digest:
    """The digest of bytes."""
    return Digest(hashlib.sha256(raw).hexdigest())


def is_digest(text: str) -> bool:
    """Whether a text is spelled as a digest."""
    return _DIGEST.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether a text may name a model, a variant, a device, a fleet or a slot."""
    return _NAME.fullmatch(text) is not None


def is_safe_path(path: str) -> bool:
    """Whether a path keeps the grammar [bundle-3.1]: 1 to 3 plain lower-case components."""
    parts = path.split("/")
    return len(parts) <= 3 and all(
        _COMPONENT.fullmatch(part) and part not in (".", "..") for part in parts
    )


def chunk_list(raw: bytes) -> bytes:
    """The concatenated raw SHA-256 digests of the 64 KiB chunks of `raw`."""
    return b"".join(
        hashlib.sha256(raw[start : start + CHUNK_SIZE]).digest()
        for start in range(0, len(raw), CHUNK_SIZE)
    )


def describe_file(root: Path, path: str, role: Role) -> BundleFile:
    """The entry of a file below `root`: regular, one link, digests measured."""
    raw = (root / path).read_bytes()
    return BundleFile(path, role, len(raw), sha256(raw), sha256(chunk_list(raw)))


def parse_version(text: str) -> tuple[int, ...]:
    """`"1.20.0"` as a tuple that compares as versions do; what follows the digits is ignored.

    Raises:
        Malformed: it does not begin with a number.
    """
    found = _VERSION.match(text)
    if found is None:
        raise Malformed(f"version {text[:40]!r} does not begin with a number")
    parts = [int(part) for part in found[0].split(".")]
    return tuple(parts + [0] * (3 - len(parts)))


def _check_manifest(manifest: Manifest) -> None:
    if not is_name(manifest.model):
        raise Malformed(f"model name {manifest.model[:80]!r}")
    if manifest.version < 1:
        raise Malformed(f"version {manifest.version}, the lowest is 1")
    if manifest.created < 0:
        raise Malformed(f"created {manifest.created}")
    if manifest.chunk_size != CHUNK_SIZE:
        raise Malformed(f"chunk size {manifest.chunk_size}, {CHUNK_SIZE} is read here")
    parse_version(manifest.agent_min)
    _check_files(manifest.files)
    roles = {file.path: file.role for file in manifest.files}
    if not manifest.variants:
        raise Malformed("no variants")
    names = [variant.name for variant in manifest.variants]
    if len(set(names)) != len(names):
        raise Malformed("two variants of one name")
    for variant in manifest.variants:
        _check_variant(variant, roles)
    if manifest.labels is not None and roles.get(manifest.labels) is not Role.LABELS:
        raise Malformed(f"labels {manifest.labels!r} is not a file of that role")


def _check_files(files: tuple[BundleFile, ...]) -> None:
    if len(files) > MAX_FILES:
        raise Malformed(f"{len(files)} files, at most {MAX_FILES} are read")
    paths = [file.path for file in files]
    if paths != sorted(set(paths)):
        raise Malformed("files are not sorted by path, or a path stands twice")
    for file in files:
        if not is_safe_path(file.path) or file.path in (MANIFEST, SIGNATURE):
            raise Malformed(f"path {file.path[:80]!r} is not allowed")
        if not 0 <= file.size <= MAX_FILE_SIZE:
            raise Malformed(f"{file.path}: size {file.size}")
        if not is_digest(file.sha256) or not is_digest(file.chunk_list_sha256):
            raise Malformed(f"{file.path}: a digest is not 64 lower-case hex digits")


def _check_variant(variant: Variant, roles: dict[str, Role]) -> None:
    if not is_name(variant.name):
        raise Malformed(f"variant name {variant.name[:80]!r}")
    for path, role in ((variant.model, Role.MODEL), (variant.golden, Role.GOLDEN)):
        if roles.get(path) is not role:
            raise Malformed(f"variant {variant.name}: {path[:80]!r} is not a {role} file")
    if variant.drift is not None and roles.get(variant.drift) is not Role.DRIFT:
        raise Malformed(f"variant {variant.name}: {variant.drift[:80]!r} is not a drift file")
    if variant.optimized_for is not None and variant.hw != (variant.optimized_for,):
        raise Malformed(f"variant {variant.name}: optimized for {variant.optimized_for[:80]!r}")
    if not variant.inputs or not variant.outputs:
        raise Malformed(f"variant {variant.name}: no inputs or no outputs")
    if variant.max_abs_err_e6 < 0:
        raise Malformed(f"variant {variant.name}: negative tolerance")
    if not variant.runtimes:
        raise Malformed(f"variant {variant.name}: names no runtime")
    for version in variant.runtimes.values():
        parse_version(version)
    if variant.program is not None:
        _check_program(variant, variant.program, roles)


def _check_program(variant: Variant, program: Program, roles: dict[str, Role]) -> None:
    what = f"variant {variant.name}"
    inputs = tuple(spec.name for spec in variant.inputs)
    outputs = tuple(spec.name for spec in variant.outputs)
    for names in (inputs, outputs):
        if len(set(names)) != len(names):
            raise Malformed(f"{what}: a tensor that it takes or gives stands twice")
    if program.nodes:
        check_graph(program.nodes, inputs, outputs, what)
        models = [node.file for node in program.nodes if node.op == MODEL]
        if models[:1] != [variant.model]:
            raise Malformed(f"{what}: {variant.model!r} is not the first model of its program")
    for node in program.nodes:
        allowed = (Role.MODEL,) if node.op == MODEL else (Role.VOCABULARY, Role.LABELS)
        if node.file and roles.get(node.file) not in allowed:
            raise Malformed(f"{what}: {node.file[:80]!r} is no file for {node.op[:40]!r}")
    taken = {pair.input for pair in program.state}
    given = {pair.output for pair in program.state}
    if len(taken) != len(program.state) or len(given) != len(program.state):
        raise Malformed(f"{what}: a tensor of its state stands twice")
    if not taken < {*inputs} or not given < {*outputs}:
        raise Malformed(f"{what}: its state is not among what it takes and gives, or is all of it")
    specs = {spec.name: (spec.dtype, len(spec.shape)) for spec in variant.inputs + variant.outputs}
    for pair in program.state:
        if specs[pair.input] != specs[pair.output]:
            raise Malformed(f"{what}: {pair.output!r} does not fit {pair.input!r}")
