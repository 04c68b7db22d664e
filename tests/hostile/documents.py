"""Hostile `bundle.json`: paths, spellings, fields; signed by the publisher, named by a director."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from edgefleet_contract import bundle as b
from edgefleet_contract import canonical, codec, messages
from edgefleet_contract.envelope import render_envelope, seal
from edgefleet_contract.reasons import Reason
from edgefleet_contract.reported import Presence
from tests.hostile.attempts import Attempt, hostile
from tests.hostile.ground import Ground

MODEL_PATH = "onnx/model.onnx"
PATHS = {
    "traversal": "../model.onnx",
    "traversal inside": "onnx/../model.onnx",
    "traversal at the end": "onnx/..",
    "escaped traversal": "%2e%2e/model.onnx",
    "absolute": "/etc/passwd",
    "two slashes": "onnx//model.onnx",
    "slash at the end": "onnx/",
    "dot": "./model.onnx",
    "only a dot": ".",
    "empty": "",
    "NUL": "onnx/model\0.onnx",
    "newline": "onnx/model\n.onnx",
    "escape": "onnx/\x1b[2J.onnx",
    "blank": "onnx/model .onnx",
    "backslash": "onnx\\model.onnx",
    "backslash traversal": "..\\model.onnx",
    "drive": "c:/model.onnx",
    "unc": "//server/model.onnx",
    "home": "~/model.onnx",
    "upper case": "onnx/Model.onnx",
    "dotless i": "onnx/model\u0131.onnx",
    "full width": "onnx/\uff4dodel.onnx",
    "combining": "onnx/mode\u0301l.onnx",
    "right to left": "onnx/\u202emodel.onnx",
    "byte order mark": "\ufeffonnx/model.onnx",
    "too deep": "a/b/c/model.onnx",
    "far too deep": "a/" * 500 + "model.onnx",
    "too long": "onnx/" + "m" * 65,
    "the manifest": "bundle.json",
    "the signature": "model.sig",
}


def changed(ground: Ground, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The good manifest with a change, in canonical spelling."""
    value = json.loads(ground.manifest)
    change(value)
    if isinstance(value["files"], list):
        value["files"].sort(key=lambda file: str(file["path"]))
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def everywhere(ground: Ground, name: str, manifest: bytes) -> Iterator[Attempt]:
    """A hostile manifest, well signed, at each door through which one comes."""
    signature = ground.sign(manifest)
    yield Attempt(f"{name}: parsed", lambda: b.parse_manifest(manifest))
    yield Attempt(f"{name}: opened", lambda: ground.open(manifest, signature))
    yield Attempt(f"{name}: in a directory", lambda: ground.verify(manifest, signature))
    yield Attempt(
        f"{name}: fetched", lambda: ground.bring(manifest, signature), trace=ground.on_disk
    )


@hostile("paths", Reason.MALFORMED)
def paths(ground: Ground) -> Iterator[Attempt]:
    """Files whose place leads out of the bundle, or is another place on another system."""
    for name, path in PATHS.items():

        def rename(value: dict[str, Any], path: str = path) -> None:
            next(file for file in value["files"] if file["path"] == MODEL_PATH)["path"] = path
            value["variants"][0]["model"] = path

        yield from everywhere(ground, name, changed(ground, rename))
    yield from everywhere(
        ground, "case collision", changed(ground, lambda v: twin(v, "onnx/MODEL.onnx"))
    )
    yield from everywhere(ground, "twice", changed(ground, lambda v: twin(v, MODEL_PATH)))


def twin(value: dict[str, Any], path: str) -> None:
    """A second entry for the model, under another name or the same."""
    model = next(file for file in value["files"] if file["path"] == MODEL_PATH)
    value["files"].append({**model, "path": path})


FIELDS: dict[str, tuple[str, object]] = {
    "empty digest": ("files.1.sha256", ""),
    "stripped suffix": ("files.1.sha256", "a" * 63),
    "upper-case digest": ("files.1.sha256", "A" * 64),
    "digest with a newline": ("files.1.sha256", "a" * 64 + "\n"),
    "digest of other digits": ("files.1.sha256", "\u0661" * 64),
    "digest with a prefix": ("files.1.sha256", "sha256:" + "a" * 57),
    "no digest": ("files.1.sha256", ...),
    "empty chunk list digest": ("files.1.chunk_list_sha256", ""),
    "negative size": ("files.1.size", -1),
    "a size over the cap": ("files.1.size", b.MAX_FILE_SIZE + 1),
    "size as text": ("files.1.size", "5"),
    "size as truth": ("files.1.size", True),
    "unknown role": ("files.1.role", "script"),
    "model that is no file": ("variants.0.model", "onnx/other.onnx"),
    "golden that is the model": ("variants.0.golden", MODEL_PATH),
    "no golden": ("variants.0.golden", ...),
    "unknown format": ("variants.0.format", "pickle"),
    "no variants": ("variants", []),
    "no inputs": ("variants.0.inputs", []),
    "object tensors": ("variants.0.inputs.0.dtype", "object"),
    "a shape below -1": ("variants.0.inputs.0.shape", [-2, 64]),
    "negative tolerance": ("variants.0.max_abs_err_e6", -1),
    "no runtime": ("variants.0.runtimes", {}),
    "a runtime of no version": ("variants.0.runtimes", {"onnxruntime": "new"}),
    "version 0": ("version", 0),
    "version as text": ("version", "2"),
    "model that is a path": ("model", "../digits"),
    "model of no name": ("model", ""),
    "other schema": ("schema", "edgefleet.bundle/2"),
    "no schema": ("schema", ...),
    "an unknown field": ("colour", "blue"),
    "other chunks": ("chunk_size", 1),
    "labels that are the model": ("labels", MODEL_PATH),
    "files that are an object": ("files", {}),
    "an agent of no version": ("agent_min", "latest"),
}


@hostile("fields", Reason.MALFORMED)
def fields(ground: Ground) -> Iterator[Attempt]:
    """A manifest that says what it may not: digests, sizes, roles, names, versions."""
    for name, (where, what) in FIELDS.items():

        def put(value: dict[str, Any], where: str = where, what: object = what) -> None:
            node: Any = value
            *way, last = where.split(".")
            for step in way:
                node = node[int(step) if isinstance(node, list) else step]
            if what is ...:
                del node[last]
            else:
                node[last] = what

        yield from everywhere(ground, name, changed(ground, put))


@hostile("missing", Reason.BUNDLE_MISMATCH, Reason.NOT_FOUND, Reason.TOO_LARGE)
def missing(ground: Ground) -> Iterator[Attempt]:
    """A payload that is not in the manifest, a file that nobody has, more than the order allows."""
    files = {file.path: str(file.sha256) for file in b.parse_manifest(ground.manifest).files}
    files[b.MANIFEST] = b.sha256(ground.manifest)
    other = "b" * 64

    def stated(files: dict[str, str], name: str = "digits-2", **predicate: object) -> bytes:
        from tests.hostile.ground import state

        statement = state(ground.statement, files, name)
        statement["predicate"]["serialization"] |= predicate
        return ground.sign_statement(statement)

    without = {path: digest for path, digest in files.items() if path != MODEL_PATH}
    for name, signature in {
        "a payload more": stated({**files, "onnx/extra.so": other}),
        "a payload less": stated(without),
        "a payload that is to be ignored": stated(without, ignore_paths=["model.sig", MODEL_PATH]),
        "another payload": stated({**files, MODEL_PATH: other}),
        "the manifest left out": stated({p: d for p, d in files.items() if p != b.MANIFEST}),
        "nothing at all": stated({}),
        "another name": stated(files, "digits-3"),
    }.items():
        yield Attempt(f"{name}: opened", lambda s=signature: ground.open(None, s))
        yield Attempt(
            f"{name}: fetched",
            lambda s=signature: ground.bring(None, s),
            trace=ground.on_disk,
        )
    for file in b.parse_manifest(ground.manifest).files:
        for digest in (file.sha256, file.chunk_list_sha256):
            gone = {str(digest): b""}
            yield Attempt(
                f"{file.path}: nobody has {digest[:8]}",
                lambda gone=gone: ground.bring(blobs=gone),
                trace=ground.on_disk,
                expected=frozenset({Reason.DIGEST_MISMATCH, "try again later"}),
            )
    yield Attempt("over the order", lambda: ground.bring(max_bytes=10), trace=ground.on_disk)


def _twists(raw: bytes) -> dict[str, bytes]:
    """A canonical object in spellings that are not to be read, whoever signed them."""
    deep = b"[" * 40 + b"]" * 40
    first = raw[1 : raw.index(b",")]

    def more(name: bytes, value: bytes) -> bytes:
        return raw[:-1] + b',"' + name + b'":' + value + b"}"

    return {
        "duplicate key": b"{" + first + b"," + raw[1:],
        "duplicate key inside": more(b"zz", b'{"a":1,"a":2}'),
        "deep": more(b"zz", deep),
        "bottomless": more(b"zz", b"[" * 100_000),
        "NaN": more(b"zz", b"NaN"),
        "infinity": more(b"zz", b"-Infinity"),
        "1e999": more(b"zz", b"1e999"),
        "100 digits": more(b"zz", b"1" * 100),
        "100,000 digits": more(b"zz", b"1" * 100_000),
        "2 to the 53rd": more(b"zz", b"9007199254740992"),
        "byte order mark": b"\xef\xbb\xbf" + raw,
        "UTF-16": raw.decode().encode("utf-16"),
        "UTF-32": raw.decode().encode("utf-32-be"),
        "lone surrogate": more(b"zz", b'"\\ud800"'),
        "lone surrogate as a key": more(b"\\udfff", b"1"),
        "surrogate as bytes": more(b"zz", b'"\xed\xa0\x80"'),
        "overlong UTF-8": more(b"zz", b'"\xc0\xaf"'),
        "overlong NUL": more(b"zz", b'"\xc0\x80"'),
        "beyond Unicode": more(b"zz", b'"\xf4\x90\x80\x80"'),
        "Latin-1": more(b"zz", b'"\xe9"'),
        "a raw control": more(b"zz", b'"\x01"'),
        "a wrong escape": more(b"zz", b'"\\x41"'),
        "trailing byte": raw + b"\0",
        "two documents": raw + raw,
        "a comment": b"/**/" + raw,
        "single quotes": raw.replace(b'"', b"'"),
        "trailing comma": raw[:-1] + b",}",
        "unfinished string": raw[:-1] + b',"' + b'\\"' * 60_000,
        "unfinished": raw[:-1],
        "a list": b"[" + raw + b"]",
        "nothing": b"",
        "a number": b"7",
        "a NUL": b"\0" * 20,
    }


def _respellings(raw: bytes) -> dict[str, bytes]:
    """The same value in another spelling: refused where bytes are signed."""
    value = json.loads(raw)
    return {
        "blanks": json.dumps(value, sort_keys=True).encode(),
        "indented": json.dumps(value, sort_keys=True, indent=1).encode(),
        "unsorted": json.dumps(dict(reversed(value.items())), separators=(",", ":")).encode(),
        "newline at the end": raw + b"\n",
        "blank at the start": b" " + raw,
        "escaped letters": raw.replace(b'"schema"', b'"sch\\u0065ma"'),
        "escaped slash": raw.replace(b"/", b"\\/"),
        "a float": raw.replace(b'"version":2', b'"version":2.0').replace(b'"seq":7', b'"seq":7.0'),
        "an exponent": raw.replace(b'"version":2', b'"version":2e0').replace(b":7,", b":7e0,"),
        "null": raw[:-1] + b',"zz":null}',
        "minus zero": raw[:-1] + b',"zz":-0}',
    }


@hostile("spellings", Reason.MALFORMED)
def spellings(ground: Ground) -> Iterator[Attempt]:
    """JSON that two readers would read in two ways, or that is not JSON: signed all the same."""
    for name, raw in (_twists(ground.manifest) | _respellings(ground.manifest)).items():
        assert raw != ground.manifest, name
        yield from everywhere(ground, name, raw)
    payload = canonical.render(codec.encode(ground.order))
    for name, raw in (_twists(payload) | _respellings(payload)).items():
        assert raw != payload, name
        yield Attempt(f"{name}: an order", lambda raw=raw: ground_order(ground, raw))
    event = messages.render(Presence(device="pi-1", boot_id="b", online=True, agent="1", ts=1))
    for name, raw in _twists(event).items():
        yield Attempt(
            f"{name}: a message",
            lambda raw=raw: messages.parse(Presence, raw, device="pi-1"),
        )


def ground_order(ground: Ground, payload: bytes) -> object:
    """An order whose body may be anything, signed by the director."""
    envelope = seal(payload, payload_type=messages.ORDER_TYPE, keys=(ground.director,))
    return messages.open_order(render_envelope(envelope), ground.director_ring)
