"""What each command does on a device; none changes what it should run. [wire-12.6]"""

from __future__ import annotations

import asyncio
import http.client
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from edgefleet_agent.adapters.host_metrics import HostMetrics
from edgefleet_agent.adapters.log_tail import LogTail
from edgefleet_agent.commander import Done, fit_lines, plain
from edgefleet_agent.device import Device, Installed
from edgefleet_agent.ports import Failed, ModelSpec, SlotStats, TrialReport
from edgefleet_contract import __version__, codec
from edgefleet_contract.capabilities import Capabilities
from edgefleet_contract.commands import Command, Kind, Outcome
from edgefleet_contract.errors import DeviceError, PeerError

_ASK_S: Final = 40.0


class Host(Protocol):
    """What commands need of the model host."""

    async def trial(self, spec: ModelSpec, *, timeout_s: float) -> TrialReport | Failed:
        """See `ports.ModelHost`."""
        ...

    async def restart(self, slot: str) -> Failed | None:
        """Another worker in the place of the one that serves a slot, without a lost request."""
        ...

    def stats(self, *, new_interval: bool = False) -> tuple[SlotStats, ...]:
        """See `ports.ModelHost`."""
        ...

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where predictions are served."""
        ...


class Models(Protocol):
    """The install machine, as far as commands look at it."""

    device: Device

    @property
    def serving(self) -> dict[str, Installed]:
        """What serves now, by slot."""
        ...


class DeviceActs:
    """`commander.Acts` of this device.

    Args:
        name, boot_id: who this is.
        state: the state folder.
        able: what the board is.
        models: the install machine.
        spec: what is needed to run a model.
        host: runs models.
        tail: the newest lines of the log.
        trial_timeout_s: how long a trial may take.
    """

    def __init__(
        self,
        *,
        name: str,
        boot_id: str,
        state: Path,
        able: Capabilities,
        models: Models,
        spec: Callable[[Installed], ModelSpec],
        host: Host,
        tail: LogTail,
        trial_timeout_s: float,
    ) -> None:
        self._name, self._boot_id, self._able = name, boot_id, able
        self._models, self._spec, self._host, self._tail = models, spec, host, tail
        self._trial_timeout_s = trial_timeout_s
        self._board = HostMetrics(state)
        self._since = time.monotonic()

    async def perform(self, command: Command) -> Done:
        """See `commander.Acts`."""
        match command.kind:
            case Kind.PING:
                return Outcome.DONE, "", self._about()
            case Kind.SNAPSHOT:
                return Outcome.DONE, "", await asyncio.to_thread(self._snapshot)
            case Kind.LOGS:
                lines = fit_lines(self._tail.newest(command.lines))
                return Outcome.DONE, "", {"lines": lines}
            case Kind.RESTART_WORKER:
                return await self._restart(command.slot)
            case Kind.SELF_TEST:
                return await self._self_test(command.slot)
            case Kind.PREDICT:
                return await asyncio.to_thread(self._predict, command.slot, command.body)

    def _about(self) -> dict[str, object]:
        up = round(time.monotonic() - self._since, 1)
        return {"agent": __version__, "clock": int(time.time()), "agent_uptime_seconds": up}

    def _snapshot(self) -> dict[str, object]:
        device, install = self._models.device, self._models.device.install
        system = codec.encode(self._board.sample(self._name))
        assert isinstance(system, dict)
        able = codec.encode(self._able)
        assert isinstance(able, dict)
        return {
            **self._about(),
            "boot_id": self._boot_id,
            "board": able,
            "system": {k: v for k, v in system.items() if k not in ("schema", "device", "ts")},
            "order_seq": device.seq,
            "phase": device.phase.value,
            "install": plain(
                {
                    "rollout": install.order.rollout,
                    "attempt": install.attempt,
                    "reason": install.reason.value if install.reason else None,
                    "detail": install.detail,
                }
            )
            if install
            else {},
            "slots": [_slot(stats) for stats in self._host.stats()],
            "kept": {
                what: {slot: _named(item) for slot, item in sorted(found.items())}
                for what, found in (
                    ("committed", device.slots),
                    ("previous", device.previous),
                    ("fallback", device.fallback),
                )
            },
            "quarantined": list(device.quarantined),
            "metadata": codec.encode(device.trust),
        }

    async def _restart(self, slot: str) -> Done:
        if slot not in self._models.serving:
            return Outcome.FAILED, self._nothing_in(slot), {}
        failed = await self._host.restart(slot)
        if failed is not None:
            return Outcome.FAILED, f"{failed.reason}: {failed.detail}", {}
        return Outcome.DONE, "", {"slot": slot}

    async def _self_test(self, slot: str) -> Done:
        chosen = {
            name: item for name, item in sorted(self._models.serving.items()) if slot in ("", name)
        }
        if not chosen:
            return Outcome.FAILED, self._nothing_in(slot), {}
        found: dict[str, object] = {}
        wrong = []
        for name, item in chosen.items():
            report = await self._try(item)
            if isinstance(report, Failed):
                wrong.append(f"{name}: {report.reason}: {report.detail}")
                found[name] = {"model": _named(item), "passed": False, "reason": report.reason}
            else:
                found[name] = {"model": _named(item), "passed": True, **_measured(report)}
        return (Outcome.FAILED if wrong else Outcome.DONE), "; ".join(wrong), {"slots": found}

    async def _try(self, item: Installed) -> TrialReport | Failed:
        try:
            spec = await asyncio.to_thread(self._spec, item)
        except (DeviceError, PeerError) as error:
            return Failed(error.reason, error.message)
        return await self._host.trial(spec, timeout_s=self._trial_timeout_s)

    def _predict(self, slot: str, body: str) -> Done:
        connection = _connect(self._host.addresses)
        try:
            where = f"/v2/models/{slot}/infer"
            headers = {"Content-Type": "application/json"}
            connection.request("POST", where, body.encode(), headers)
            reply = connection.getresponse()
            answer = reply.read().decode("utf-8", "replace").replace("\0", "")
        except (OSError, http.client.HTTPException) as error:
            return Outcome.FAILED, f"nothing serves at the moment: {error}", {}
        finally:
            connection.close()
        is_good = reply.status == 200
        detail = "" if is_good else f"status {reply.status}"
        data: dict[str, object] = {"status": reply.status, "body": answer}
        return (Outcome.DONE if is_good else Outcome.FAILED), detail, data

    def _nothing_in(self, slot: str) -> str:
        served = ", ".join(sorted(self._models.serving)) or "nothing"
        return f"nothing serves in {slot or 'any slot'}; served: {served}"


def _named(item: Installed) -> str:
    return f"{item.target.model}@{item.target.version}"


def _slot(stats: SlotStats) -> dict[str, object]:
    return {
        "slot": stats.slot,
        "model": f"{stats.model}@{stats.version}",
        "variant": stats.variant,
        "engine": stats.engine,
        "accelerator": stats.accelerator,
        "ready": stats.ready,
        "requests": stats.requests,
        "failures": stats.failures,
        "restarts": stats.restarts,
        "worker_rss_bytes": stats.worker_rss_bytes,
    }


def _measured(report: TrialReport) -> dict[str, object]:
    return {
        "vectors": report.vectors,
        "max_abs_err": report.max_abs_err,
        "load_ms": report.load_ms,
        "p50_us": report.p50_us,
        "p95_us": report.p95_us,
        "ram_mib": report.ram_mib,
        "accelerator": report.accelerator,
        "made_room": report.made_room,
    }


def _connect(addresses: tuple[str, ...]) -> http.client.HTTPConnection:
    """A connection to the agent's own door, as its clients have it."""
    local = next((at for at in addresses if at.startswith("unix:")), "")
    if local:
        return _UnixConnection(local.removeprefix("unix:"))
    host, _, port = addresses[0].rpartition(":") if addresses else ("127.0.0.1", "", "0")
    return http.client.HTTPConnection(host.strip("[]"), int(port), timeout=_ASK_S)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_ASK_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
