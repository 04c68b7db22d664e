"""Documents for tests: small, valid, made by the product's own code."""

from __future__ import annotations

import time
from pathlib import Path

from edgefleet_contract import bundle as b
from edgefleet_contract.keys import Signer
from edgefleet_contract.model_signature import sign_bundle
from edgefleet_contract.order_policy import Policy
from edgefleet_contract.orders import Order, Target

ISSUED = int(time.time())
SPECS = (b.TensorSpec("x", "float32", (-1, 4)),), (b.TensorSpec("y", "float32", (-1, 2)),)


def write_bundle(
    root: Path,
    key: Signer,
    *,
    model: str = "digits",
    version: int = 1,
    content: bytes = b"model",
    agent_min: str = "0.1.0",
    runtimes: dict[str, str] | None = None,
    drift: bytes = b"",
) -> Path:
    """A signed bundle directory whose model file is `content`; with a drift reference, if given."""
    folder = root / f"{model}-{version}"
    (folder / "v").mkdir(parents=True)
    (folder / "v" / "model.onnx").write_bytes(content)
    (folder / "v" / "golden.npz").write_bytes(b"golden")
    variant = b.Variant(
        name="v",
        format=b.Format.ONNX,
        precision="float32",
        model="v/model.onnx",
        golden="v/golden.npz",
        max_abs_err_e6=10,
        inputs=SPECS[0],
        outputs=SPECS[1],
        runtimes=runtimes or {"onnxruntime": "1.0"},
        drift="v/drift.json" if drift else None,
    )
    if drift:
        (folder / "v" / "drift.json").write_bytes(drift)
    files = (
        *((b.describe_file(folder, "v/drift.json", b.Role.DRIFT),) if drift else ()),
        b.describe_file(folder, "v/golden.npz", b.Role.GOLDEN),
        b.describe_file(folder, "v/model.onnx", b.Role.MODEL),
    )
    manifest = b.Manifest(model, version, 1_700_000_000, agent_min, (variant,), files)
    raw = b.render_manifest(manifest)
    (folder / b.MANIFEST).write_bytes(raw)
    (folder / b.SIGNATURE).write_bytes(sign_bundle(raw, key))
    return folder


def target_of(folder: Path, *, slot: str = "digits") -> Target:
    """The target that names a bundle directory."""
    raw = (folder / b.MANIFEST).read_bytes()
    manifest = b.parse_manifest(raw)
    signature = (folder / b.SIGNATURE).read_bytes()
    return Target(
        slot,
        manifest.model,
        manifest.version,
        b.sha256(raw),
        b.sha256(signature),
        manifest.total_size,
    )


def order_of(
    *targets: Target, seq: int = 1, sources: tuple[str, ...] = (), **more: object
) -> Order:
    """An order for `pi-1` of fleet `demo`, issued today and good for a day."""
    fields: dict[str, object] = {
        "fleet": "demo",
        "device": "pi-1",
        "issued": ISSUED,
        "expires": ISSUED + 86_400,
        "rollout": f"r-{seq}",
        "policy": Policy(probation_s=0),
        **more,
    }
    return Order(seq=seq, targets=targets, sources=sources, **fields)  # type: ignore[arg-type]
