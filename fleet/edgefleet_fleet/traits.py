"""What a filter can ask of a device, by key; and the keys that there are. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

PLAIN_KEYS: Final = (
    *("id", "hw", "hardware_class", "arch", "board", "cpu", "feature", "os", "kernel", "python"),
    *("agent", "engine", "accelerator", "model", "phase", "online"),
    *("reason", "quarantined"),
)
NUMBER_KEYS: Final = ("cpus", "memory_mib", "disk_mib", "seen_at", "enrolled_at")
FAMILIES: Final = ("tag", "engine", "model")
KEYS: Final = (*PLAIN_KEYS, *NUMBER_KEYS, "tag.KEY", "engine.NAME", "model.SLOT")


@dataclass(frozen=True, slots=True)
class Traits:
    """What a filter can ask of a device. `models` holds `name` and `name@version` of each;
    `engine_versions` and `model_versions` are by runtime and by slot; times are in seconds since
    1970."""

    id: str
    hw: str = ""
    arch: str = ""
    board: str = ""
    engines: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    online: bool = False
    hardware_class: str = ""
    cpu: str = ""
    features: frozenset[str] = frozenset()
    os: str = ""
    kernel: str = ""
    python: str = ""
    agent: str = ""
    phase: str = ""
    accelerators: frozenset[str] = frozenset()
    cpus: int = 0
    memory_mib: int = 0
    disk_mib: int = 0
    seen_at: int = 0
    enrolled_at: int = 0
    reason: str = ""
    quarantined: frozenset[str] = frozenset()
    engine_versions: Mapping[str, str] = field(default_factory=dict)
    model_versions: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def values(self, key: str) -> frozenset[str]:
        """What the device answers to a key of a filter; nothing where it does not say."""
        family, _, name = key.partition(".")
        match family:
            case "tag":
                return _some(self.tags.get(name, ""))
            case "engine":
                return _some(self.engine_versions.get(name, "")) if name else self.engines
            case "model":
                return _some(self.model_versions.get(name, "")) if name else self.models
            case "feature":
                return self.features
            case "accelerator":
                return self.accelerators
            case "quarantined":
                return self.quarantined
            case "online":
                return frozenset({"true" if self.online else "false"})
            case "cpus" | "memory_mib" | "disk_mib":
                return _some(str(getattr(self, key) or ""))
            case "seen_at" | "enrolled_at":
                return frozenset({str(getattr(self, key))})  # 0: never, which is long ago
            case _:
                return _some(str(getattr(self, key)))


def _some(value: str) -> frozenset[str]:
    return frozenset({value}) if value else frozenset()
