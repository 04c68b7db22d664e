"""A built bundle on the device's own code: its trial, and what it serves."""

from __future__ import annotations

import asyncio
from pathlib import Path

from edgefleet_agent.ports import Failed, ModelSpec, StoredFile, TrialReport
from edgefleet_agent.runtime.trial_runner import try_model
from edgefleet_contract.bundle import Manifest, sha256


def spec_of(root: Path, manifest: Manifest, variant: str) -> ModelSpec:
    """A variant of a bundle directory, its files where they lie."""
    found = next(one for one in manifest.variants if one.name == variant)
    return ModelSpec(
        slot=manifest.model,
        model=manifest.model,
        version=manifest.version,
        bundle_sha256=sha256((root / "bundle.json").read_bytes()),
        variant=found,
        engine=next(iter(found.runtimes)),
        files={
            file.path: StoredFile(str(root / file.path), file.sha256)
            for file in manifest.files_for(found)
        },
        labels=manifest.labels or "",
    )


def tried(root: Path, manifest: Manifest, variant: str) -> TrialReport | Failed:
    """The outcome of a device's trial, in a process of its own."""
    spec = spec_of(root, manifest, variant)
    return asyncio.run(try_model(spec, timeout_s=120, threads=1, data_mib=0))
