"""How one agent is set up: `agent.toml`, read once, unknown keys refused.

    state/agent.toml            or the file given with --config

Every key has a default: an empty file, or none, is a working configuration.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from edgefleet_agent.runtime.chain import ON_THE_PROCESSOR, Accelerators, AcceleratorSetup
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_agent.sources.config import SourceConfig, parse_sources
from edgefleet_agent.transfer.pace import HourCap, check_cap
from edgefleet_contract import codec
from edgefleet_contract.blocks import MAX_OFFSETS
from edgefleet_contract.canonical import Json
from edgefleet_contract.commands import ALLOWED, Kind
from edgefleet_contract.errors import Malformed, OperatorError

FILE: Final = "agent.toml"
SOURCES_LISTENER: Final = "unix:sources.sock"
WAYS: Final = ("folder", "mirror", "http", "mqtt")


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """The runtimes: `engines` that may be used, the preferred first (`onnxruntime`, `litert`,
    `tflite-runtime`; empty: all that are installed), and how long a trial may take, s.

    `zygote`: workers, trials and shadows are forks of one process that has the runtimes loaded,
    where that works; false: each is started as a program.

    `accelerators` that models may run on, the preferred first, the processor always last; empty:
    the processor. `setup` is what they are given, by name.
    """

    engines: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()
    setup: dict[str, AcceleratorSetup] = field(default_factory=dict)
    trial_timeout_s: float = 120.0
    zygote: bool = True

    def __post_init__(self) -> None:
        for name, setup in self.setup.items():
            if setup.library and name in ON_THE_PROCESSOR:
                raise OperatorError(
                    f"runtime.setup.{name} has a library", hint="choose another name for it"
                )

    def on(self) -> Accelerators:
        """What models may run on, where their slots say nothing else."""
        return Accelerators(self.accelerators, self.setup)


@dataclass(frozen=True, slots=True)
class TelemetryConfig:
    """How often the board and the models are reported, s."""

    interval_s: float = 10.0


@dataclass(frozen=True, slots=True)
class MqttConfig:
    """The link: keep-alive, and how long the broker waits before it reports a lost device; s."""

    keepalive_s: int = 30
    will_delay_s: int = 60


@dataclass(frozen=True, slots=True)
class TransferConfig:
    """How blobs come: the `[transfer]` table.

    `order` of the ways that may be used, the first first: `folder` (below `folders`, patterns;
    relative ones are below the state folder), `mirror` (base URLs of caches of the site), `http`
    (what the order names), `mqtt` (in band).
    `max_bytes_per_s` caps what comes over the uplink, that is by `http` and `mqtt` (0: no cap);
    `hours` are caps for hours of the day. `window`: the most blocks on their way at once by `mqtt`.
    `metered` says that the uplink costs by the byte: installs that want one that does not wait for
    a stick or a mirror.
    """

    order: tuple[str, ...] = WAYS
    folders: tuple[str, ...] = ("stick", "/media/*", "/media/*/*")
    mirrors: tuple[str, ...] = ()
    max_bytes_per_s: int = 0
    hours: tuple[HourCap, ...] = ()
    window: int = 16
    metered: bool = False

    def __post_init__(self) -> None:
        unknown = sorted(set(self.order) - set(WAYS))
        if unknown or not self.order or len(set(self.order)) < len(self.order):
            raise OperatorError(
                f"transfer.order is {list(self.order)}",
                hint=f"some of {', '.join(WAYS)}, each once",
            )
        for url in self.mirrors:
            if not url.startswith(("http://", "https://")):
                raise OperatorError(
                    f"transfer.mirrors: {url!r}", hint="for example http://cache.local:8080/blobs"
                )
        check_cap("transfer.max_bytes_per_s", self.max_bytes_per_s)
        if not 1 <= self.window <= MAX_OFFSETS:
            raise OperatorError(f"transfer.window is {self.window}", hint=f"1 to {MAX_OFFSETS}")


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """The control room over https: `ca_file` (PEM) is believed besides the fleet's own authority,
    for one whose certificate is from elsewhere."""

    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class CommandsConfig:
    """The commands of the fleet that this device carries out: the kinds in `allow`, no other."""

    allow: tuple[Kind, ...] = ALLOWED


@dataclass(frozen=True, slots=True)
class Config:
    """All of `agent.toml`. Relative paths in `serving.listen` and `serving.lan` are below the
    state folder."""

    serving: ServingConfig = field(default_factory=ServingConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    telemetry: TelemetryConfig = TelemetryConfig()
    mqtt: MqttConfig = MqttConfig()
    transfer: TransferConfig = TransferConfig()
    http: HttpConfig = HttpConfig()
    commands: CommandsConfig = CommandsConfig()
    sources: tuple[SourceConfig, ...] = ()


def load(path: Path | None, state: Path) -> Config:
    """The configuration in `path`, else in the state folder, else the defaults.

    Raises:
        OperatorError: the file cannot be read, is not TOML, or holds what is not known.
    """
    chosen = path or state / FILE
    try:
        text = chosen.read_text(encoding="utf-8")
    except FileNotFoundError:
        if path is None:
            return _placed(Config(), state)
        raise OperatorError(f"there is no configuration file {chosen}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"cannot read the configuration {chosen}: {error}") from None
    try:
        value: dict[str, Json] = tomllib.loads(text)
        sources = parse_sources(value.pop("sources", []), what=str(chosen))
        config = codec.decode(Config, value, what=str(chosen))
        return _placed(replace(config, sources=sources), state)
    except tomllib.TOMLDecodeError as error:
        raise OperatorError(f"{chosen} is not TOML: {error}") from None
    except Malformed as error:
        raise OperatorError(error.message, hint=error.hint) from None


def _placed(config: Config, state: Path) -> Config:
    """With every Unix socket, one at least where sources ask, and what the network needs, at an
    absolute path."""
    if config.sources and not any(at.startswith("unix:") for at in config.serving.listen):
        listen = (*config.serving.listen, SOURCES_LISTENER)
        config = replace(config, serving=replace(config.serving, listen=listen))
    listen = tuple(
        f"unix:{state.absolute() / address.removeprefix('unix:')}"
        if address.startswith("unix:")
        else address
        for address in config.serving.listen
    )
    lan = config.serving.lan
    lan = lan.below(state) if lan is not None else None
    return replace(config, serving=replace(config.serving, listen=listen, lan=lan))
