"""The key of this device at work: from an order's sealed DEK to the keys of single files.

Nothing here is written or logged. The key is read for each use, so that it is in memory no longer
than it takes; what serves has the keys of its own files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from edgefleet_agent.identity import Identity, load_seal_key
from edgefleet_agent.ports import FileSeal
from edgefleet_contract.bundle import BundleFile
from edgefleet_contract.errors import DeviceError, OperatorError
from edgefleet_contract.orders import Sealed, Target
from edgefleet_contract.reasons import Reason
from edgefleet_contract.sealed import Dek, file_key, open_dek

Unsealer: TypeAlias = Callable[[Target, Sealed], Dek]
"""Opens the DEK of a target; raises UNSEALING_FAILED."""


def unsealer(identity: Identity) -> Unsealer:
    """What opens the DEKs that were sealed for a device."""
    return unsealer_of(identity.seal_key, identity.enrolment.fleet, identity.enrolment.device)


def unsealer_of(key: Path, fleet: str, device: str) -> Unsealer:
    """`unsealer`, by the file of the key and the names that a DEK is bound to."""

    def unseal(target: Target, sealed: Sealed) -> Dek:
        try:
            private = load_seal_key(key)
        except OperatorError as error:
            raise DeviceError(
                f"{target.model}@{target.version} is sealed, and {error.message}",
                reason=Reason.UNSEALING_FAILED,
                hint="enrol this device anew",
            ) from None
        return open_dek(
            sealed.sealed_dek, private, fleet=fleet, device=device, bundle=target.bundle_sha256
        )

    return unseal


def no_key(target: Target, _: Sealed) -> Dek:
    """The unsealer of a device without a key."""
    raise DeviceError(
        f"{target.model}@{target.version} is sealed, and this device has no key for it",
        reason=Reason.UNSEALING_FAILED,
    )


def file_seal(dek: Dek, target: Target, file: BundleFile) -> FileSeal:
    """What a child is told to open one file of a bundle."""
    bundle = target.bundle_sha256
    return FileSeal(bundle, file.path, file_key(dek, bundle, file.path).hex())
