"""Writes the vectors: `python -m tests.vectors.make`. The keys beside them are for tests only.

A vector is a file: header lines `name: value`, an empty line, and the bytes to be read, exactly.
`expect:` is `ok` or the Reason with which they must be refused. Signatures by ECDSA differ at each
run, so vectors are made once and kept: they are what a later version must still read.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

from edgefleet_contract import bundle as b
from edgefleet_contract import canonical, codec, messages
from edgefleet_contract.envelope import Envelope, Signature, render_envelope, seal
from edgefleet_contract.graph import Node, Program, StatePair
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.model_signature import sign_bundle
from edgefleet_contract.orders import Order, Sealed, Target

ROOT = Path(__file__).parent


def write(kind: str, name: str, expect: str, body: bytes, comment: str) -> None:
    folder = ROOT / kind
    folder.mkdir(exist_ok=True)
    header = f"expect: {expect}\ncomment: {comment}\n\n".encode()
    (folder / f"{name}.vector").write_bytes(header + body)


def key(name: str, make: object) -> PrivateKey:
    path = ROOT / "keys" / f"{name}.pem"
    if not path.exists():
        made = make()  # type: ignore[operator]
        made.save(path)
        (ROOT / "keys" / f"{name}.pub.pem").write_text(made.public.pem)
    return PrivateKey.load(path)


def canonical_vectors() -> None:
    deep = b"[" * 13 + b"]" * 13
    for name, expect, body, comment in (
        ("object", "ok", b'{"a":1,"b":[true,false,"x"]}', "sorted keys, no blanks"),
        ("utf16-order", "ok", '{"\U0001f600":1,"\ufb33":2}'.encode(), "keys sort by UTF-16 units"),
        ("escapes", "ok", b'"\\b\\t\\n\\f\\r\\"\\\\\\u001f/"', "the only spelling of controls"),
        ("blank", "malformed", b'{"a": 1}', "a blank after the colon"),
        ("unsorted", "malformed", b'{"b":1,"a":2}', "keys out of order"),
        ("duplicate", "malformed", b'{"a":1,"a":2}', "the same key twice"),
        ("float", "malformed", b"1.5", "floats have many spellings"),
        ("exponent", "malformed", b"1e3", "an integer as a float"),
        ("nan", "malformed", b"NaN", "not JSON"),
        ("infinity", "malformed", b"[Infinity]", "not JSON"),
        ("null", "malformed", b"null", "no null in signed documents"),
        ("huge-int", "malformed", b"1" * 100, "a 100-digit integer"),
        ("two-to-53", "malformed", b"9007199254740992", "first integer that is not exact"),
        ("below-two-to-53", "ok", b"9007199254740991", "last integer that is exact"),
        ("minus-zero", "malformed", b"-0", "zero has one spelling"),
        ("bom", "malformed", b"\xef\xbb\xbf{}", "byte order mark"),
        ("surrogate", "malformed", b'"\\ud800"', "a lone surrogate"),
        ("escaped-ascii", "malformed", b'"\\u0041"', "another spelling of A"),
        ("latin-1", "malformed", b'"\xe9"', "not UTF-8"),
        ("overlong", "malformed", b'"\xc0\xaf"', "overlong UTF-8"),
        ("deep", "malformed", deep, "13 levels"),
        ("bomb", "malformed", b"[" * 100_000, "100,000 levels"),
        ("trailing", "malformed", b"{}{}", "two documents"),
        ("empty", "malformed", b"", "nothing"),
        ("newline", "malformed", b"{}\n", "a newline at the end"),
        ("large", "malformed", b'"' + b"a" * canonical.MAX_BYTES + b'"', "over the size cap"),
    ):
        write("canonical", name, expect, body, comment)


def order_vectors() -> None:
    director = key("director", PrivateKey.generate_ed25519)
    stranger = key("stranger", PrivateKey.generate_ed25519)
    target = Target("digits", "digits", 3, b.Digest("a" * 64), b.Digest("b" * 64), 100_000)
    order = Order("demo", "pi-1", 7, 1_700_000_000, 1_700_600_000, "r-1", (target,))
    good = messages.seal_order(order, director)
    write("order", "good", "ok", good, "signed by the director")
    opened = Sealed(base64.b64encode(bytes(range(80))).decode(), b.Digest("c" * 64))
    sealed_order = replace(order, targets=(replace(target, sealed=opened),))
    write("order", "sealed", "ok", messages.seal_order(sealed_order, director), "a sealed bundle")
    write("order", "unknown-key", "unknown_key", messages.seal_order(order, stranger), "stranger")
    payload = canonical.render(codec.encode(order))
    sealed = seal(payload, payload_type=messages.ORDER_TYPE, keys=(director,))

    def variant(name: str, expect: str, envelope: Envelope, comment: str) -> None:
        write("order", name, expect, render_envelope(envelope), comment)

    other = base64.b64encode(payload.replace(b'"seq":7', b'"seq":8')).decode()
    variant("changed-payload", "bad_signature", replace(sealed, payload=other), "another number")
    lying = Signature(sealed.signatures[0].sig, stranger.public.id)
    variant("swapped-key-id", "unknown_key", replace(sealed, signatures=(lying,)), "another key id")
    variant("no-signature", "malformed", replace(sealed, signatures=()), "none")
    nine = replace(sealed, signatures=sealed.signatures * 9)
    variant("nine-signatures", "malformed", nine, "over the cap")
    variant("other-type", "malformed", replace(sealed, payloadType="text/plain"), "payload type")
    cut = Signature(base64.b64encode(b"short").decode(), director.public.id)
    variant("short-signature", "bad_signature", replace(sealed, signatures=(cut,)), "five bytes")
    for name, body, comment in (
        ("not-canonical", payload + b" ", "a blank after the body"),
        ("no-device", payload.replace(b'"device":"pi-1",', b""), "a field is missing"),
        ("other-schema", payload.replace(b"order/1", b"order/2"), "an unknown major version"),
        ("text-number", payload.replace(b'"seq":7', b'"seq":"7"'), "a string for a number"),
        ("short-sealed-key", with_sealed(payload, "A" * 104), "a sealed key of 78 bytes"),
        ("loose-sealed-key", with_sealed(payload, "A" * 106 + "B="), "another base64 spelling"),
        ("bad-digest", payload.replace(b"a" * 64, b"A" * 64), "a digest in upper case"),
    ):
        signed = seal(body, payload_type=messages.ORDER_TYPE, keys=(director,))
        variant(name, "malformed", signed, f"well signed, but: {comment}")
    raw = json.loads(good)
    raw["payload"] = raw["payload"].rstrip("=") + "\n"
    write("order", "loose-base64", "malformed", json.dumps(raw).encode(), "another base64 spelling")
    write("order", "truncated", "malformed", good[:-10], "the end is missing")


def with_sealed(payload: bytes, dek: str) -> bytes:
    """The body of an order whose target has this sealed key."""
    value = json.loads(payload)
    value["targets"][0]["sealed"] = {"dek": dek, "index_sha256": "c" * 64}
    return canonical.render(value)


def manifest() -> b.Manifest:
    specs = (b.TensorSpec("x", "float32", (-1, 64)),), (b.TensorSpec("y", "float32", (-1, 10)),)
    variant = b.Variant(
        name="onnx-int8",
        format=b.Format.ONNX,
        precision="int8",
        model="onnx-int8/model.onnx",
        golden="onnx-int8/golden.npz",
        max_abs_err_e6=4000,
        inputs=specs[0],
        outputs=specs[1],
        runtimes={"onnxruntime": "1.19.0"},
        limits={"arm64": b.Limits(ram_mib=256, load_ms=5000, p95_us=100_000)},
    )
    files = tuple(
        b.BundleFile(path, role, 4, b.sha256(path.encode()), b.sha256(role.encode()))
        for path, role in (
            ("labels.txt", b.Role.LABELS),
            ("onnx-int8/golden.npz", b.Role.GOLDEN),
            ("onnx-int8/model.onnx", b.Role.MODEL),
        )
    )
    return b.Manifest("digits", 3, 1_700_000_000, "0.1.0", (variant,), files, "labels.txt")


def manifest_vectors() -> None:
    raw = b.render_manifest(manifest())
    write("manifest", "good", "ok", raw, "one variant")
    for name, old, new, comment in (
        ("traversal", b'"labels.txt"', b'"../labels.t"', "a path that leaves the folder"),
        ("absolute", b'"labels.txt"', b'"/labels.txt"', "an absolute path"),
        ("upper-case", b'"labels.txt"', b'"Labels.txt"', "case decides on some systems"),
        ("nul", b'"labels.txt"', b'"labels\\u0000"', "a NUL in a path"),
        ("four-deep", b'"labels.txt"', b'"a/b/c/d.txt"', "four components"),
        ("signature-as-file", b'"labels.txt"', b'"model.sig"', "a document as a file"),
        ("version-zero", b'"version":3', b'"version":0', "versions begin at 1"),
        ("negative-size", b'"size":4', b'"size":-4', "a negative size"),
        ("unknown-field", b'"created":', b'"colour":1,"created":', "a field nobody knows"),
        ("unknown-format", b'"format":"onnx"', b'"format":"pkl"', "a pickle is not a model"),
        ("unknown-dtype", b'"dtype":"float32"', b'"dtype":"object"', "an object tensor"),
        ("other-schema", b"bundle/1", b"bundle/2", "an unknown major version"),
        ("chunk-size", b'"chunk_size":65536', b'"chunk_size":4096', "another chunk size"),
        ("model-name", b'"model":"digits"', b'"model":"../digits"', "a name that is a path"),
        ("no-runtime", b'{"onnxruntime":"1.19.0"}', b"{}", "nothing can run it"),
        ("agent-min", b'"agent_min":"0.1.0"', b'"agent_min":"new"', "not a version"),
    ):
        body = raw.replace(old, new)
        assert body != raw, name
        write("manifest", name, "malformed", body, comment)


def program_vectors() -> None:
    """A program of every kind of setting; then programs that are none."""
    image = (b.TensorSpec("image", "uint8", (-1, -1, -1, 3)), b.TensorSpec("h", "float32", (-1, 4)))
    given = (b.TensorSpec("label", "string", (-1, 3)), b.TensorSpec("hn", "float32", (-1, 4)))
    nodes = (
        Node("resize", ("image",), ("small",), settings={"height": 8, "width": 8}),
        Node("normalise", ("small",), ("x",), settings={"mean": ["0.5", "1/3"], "scale": "1/255"}),
        Node("model", ("x", "h"), ("y", "hn"), "onnx-int8/model.onnx"),
        Node("top_k", ("y",), ("label",), "labels.txt", {"k": 3}),
    )
    program = Program(nodes, (StatePair("h", "hn"),))
    plain = manifest()
    variant = replace(plain.variants[0], inputs=image, outputs=given, program=program)
    raw = b.render_manifest(replace(plain, variants=(variant,)))
    write("manifest", "program", "ok", raw, "steps, a model, labels, and a state")
    for name, old, new, comment in (
        ("program-forward", b'["small"],"op":"normalise"', b'["y"],"op":"normalise"', "of later"),
        ("program-itself", b'"inputs":["image"]', b'"inputs":["small"]', "its own output"),
        ("program-twice", b'"outputs":["x"]', b'"outputs":["small"]', "a name given twice"),
        ("program-input", b'"outputs":["x"]', b'"outputs":["image"]', "an input given again"),
        ("program-no-output", b'["label"],"settings"', b'["lable"],"settings"', "a lost output"),
        ("program-nothing", b'"inputs":["image"]', b'"inputs":[]', "a node that takes nothing"),
        ("program-gives-none", b'"outputs":["x"]', b'"outputs":[]', "a node that gives nothing"),
        ("program-no-model", b'"op":"model"', b'"op":"modal"', "the variant's model is not run"),
        ("program-role", b'"file":"labels.txt"', b'"file":"onnx-int8/golden.npz"', "another role"),
        (
            "program-no-file",
            b'"file":"labels.txt"',
            b'"file":"other.txt"',
            "a file that is not there",
        ),
        ("program-field", b'"file":"","inputs":["im', b'"a":1,"file":"","inputs":["im', "a field"),
        ("program-float", b'"k":3', b'"k":3.0', "a float among the settings"),
        ("program-state", b'"output":"hn"', b'"output":"label"', "a state of another dtype"),
        ("program-hidden-state", b'"hidden_state":false', b'"hidden_state":0', "not a truth value"),
        ("unknown-role", b'"role":"labels"', b'"role":"tokens"', "a role nobody knows"),
    ):
        body = raw.replace(old, new)
        assert body != raw, name
        write("manifest", name, "malformed", body, comment)


def signature_vectors() -> None:
    publisher = key("publisher", PrivateKey.generate_p256)
    stranger = key("stranger-publisher", PrivateKey.generate_p256)
    raw = b.render_manifest(manifest())
    (ROOT / "signature").mkdir(exist_ok=True)
    (ROOT / "signature" / "bundle.json").write_bytes(raw)
    good = sign_bundle(raw, publisher)
    write("signature", "good", "ok", good, "by the publisher")
    write("signature", "unknown-key", "unknown_key", sign_bundle(raw, stranger), "by a stranger")
    later = b.render_manifest(replace(manifest(), version=4))
    write(
        "signature", "other-version", "bundle_mismatch", sign_bundle(later, publisher),
        "a good signature of another version",
    )  # fmt: skip
    created = b.render_manifest(replace(manifest(), created=1))
    write(
        "signature", "other-manifest", "bundle_mismatch", sign_bundle(created, publisher),
        "a good signature of the same name and version with another bundle.json",
    )  # fmt: skip
    document = json.loads(good)
    envelope = document["dsseEnvelope"]

    def changed(name: str, expect: str, comment: str, **fields: object) -> None:
        body = {**document, "dsseEnvelope": {**envelope, **fields}}
        write("signature", name, expect, json.dumps(body).encode(), comment)

    changed("stripped", "malformed", "no signature", signatures=[])
    changed("doubled", "malformed", "two of them", signatures=envelope["signatures"] * 2)
    changed("payload-type", "malformed", "another payload type", payloadType="text/plain")
    payload = base64.b64decode(envelope["payload"])
    moved = base64.b64encode(payload.replace(b"labels.txt", b"labels.tx_")).decode()
    changed("changed-statement", "bad_signature", "a file renamed in the statement", payload=moved)
    short = base64.b64encode(base64.b64decode(envelope["signatures"][0]["sig"])[:-2]).decode()
    changed("truncated-signature", "bad_signature", "cut", signatures=[{"sig": short, "keyid": ""}])
    write("signature", "media-type", "malformed", good.replace(b"v0.3", b"v0.9"), "unknown version")
    write("signature", "not-json", "malformed", b"MIIB", "not JSON")


if __name__ == "__main__":
    (ROOT / "keys").mkdir(exist_ok=True)
    canonical_vectors()
    order_vectors()
    manifest_vectors()
    program_vectors()
    signature_vectors()
