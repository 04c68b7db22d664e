"""What filters can ask of a device, from what it reports and how it is tagged. No I/O."""

from __future__ import annotations

from edgefleet_contract.capabilities import Capabilities
from edgefleet_fleet.device_views import hardware_class
from edgefleet_fleet.records import Device
from edgefleet_fleet.traits import Traits


def traits_of(device: Device, capabilities: Capabilities | None = None) -> Traits:
    """What filters can ask of a device."""
    reported = device.reported
    able = capabilities or (reported.capabilities if reported is not None else None)
    models = reported.models if reported is not None else ()
    names = {model.model for model in models} | {f"{m.model}@{m.version}" for m in models}
    return Traits(
        id=device.id,
        hw=device.hw,
        arch=device.arch,
        board=device.board,
        hardware_class=(able.hardware_class if able else "") or hardware_class(device),
        cpu=able.cpu if able else "",
        features=frozenset(able.features if able else ()),
        os=able.os if able else "",
        kernel=able.kernel if able else "",
        python=able.python if able else "",
        agent=device.agent,
        phase=reported.phase.value if reported else "",
        engines=frozenset(able.engines) if able is not None else frozenset(),
        accelerators=frozenset(able.accelerators if able else ()),
        models=frozenset(names),
        online=device.online,
        cpus=able.cpus if able else 0,
        memory_mib=able.memory_bytes // 2**20 if able else 0,
        disk_mib=able.disk_bytes // 2**20 if able else 0,
        seen_at=device.seen_at,
        enrolled_at=device.enrolled_at,
        reason=reported.reason.value if reported and reported.reason else "",
        quarantined=frozenset(reported.quarantined if reported else ()),
        engine_versions=able.engines if able else {},
        model_versions={model.slot: str(model.version) for model in models},
        tags=device.tags,
    )


def kind_of(device: Device, capabilities: Capabilities | None = None) -> str:
    """The hardware class that a device counts for."""
    return traits_of(device, capabilities).hardware_class
