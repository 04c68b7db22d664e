"""Runs on the board: the device's own trial and serving on a bundle, with each runtime.

    python on_board.py BUNDLE HELD_OUT.npz

Prints one JSON line. It needs nothing but what `edgefleet[agent]` brings.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgefleet_agent.adapters.host_metrics import hardware_class
from edgefleet_agent.ports import Failed, ModelSpec, StoredFile
from edgefleet_agent.runtime.choice import choose
from edgefleet_agent.runtime.engines import available
from edgefleet_agent.runtime.host import LocalHost
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_contract.bundle import Manifest, parse_manifest, sha256

ROWS = 54


def spec_of(root: Path, manifest: Manifest, engine: str) -> ModelSpec:
    """The variant that this board would run on one of its runtimes."""
    chosen = choose(manifest, {engine: available()[engine]}, hardware_class())
    assert not isinstance(chosen, Failed), chosen
    variant = chosen.variant
    return ModelSpec(
        slot=engine,
        model=manifest.model,
        version=manifest.version,
        bundle_sha256=sha256((root / "bundle.json").read_bytes()),
        variant=variant,
        engine=engine,
        files={
            file.path: StoredFile(str(root / file.path), file.sha256)
            for file in manifest.files_for(variant)
        },
        limits=variant.limits.get(hardware_class()),
    )


def accuracy(address: str, slot: str, x: Any, y: Any) -> float:
    """The share that the served model labels rightly; x float32 [N, F], y int64 [N]."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=300)
    right = 0
    for start in range(0, len(y), ROWS):
        body = json.dumps({"instances": x[start : start + ROWS].tolist()})
        connection.request("POST", f"/v1/models/{slot}:predict", body)
        answer = json.loads(connection.getresponse().read())
        right += int((np.argmax(answer["predictions"], 1) == y[start : start + ROWS]).sum())
    connection.close()
    return right / len(y)


async def main(root: Path, held_out: Path) -> dict[str, Any]:
    """The figures of every runtime."""
    manifest = parse_manifest((root / "bundle.json").read_bytes())
    data = np.load(held_out)
    found: dict[str, Any] = {"machine": platform.machine(), "runtimes": {}}
    config = ServingConfig(listen=("127.0.0.1:0",), ready_s=300, deadline_s=300)
    async with LocalHost(config) as host:
        for engine, version in available().items():
            spec = spec_of(root, manifest, engine)
            report = await host.trial(spec, timeout_s=600)
            assert not isinstance(report, Failed), report
            failed = await host.activate((spec,))
            assert failed is None, failed
            share = await asyncio.to_thread(
                accuracy, host.addresses[0], engine, data["x"], data["y"]
            )
            found["runtimes"][engine] = {
                "version": version,
                "variant": spec.variant.name,
                "golden_max_abs_err": report.max_abs_err,
                "accuracy": round(share, 4),
            }
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))))
