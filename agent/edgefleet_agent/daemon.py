"""The agent as it runs: wires the parts together, and owns them from start to stop.

Everything lives in one task group: a part that dies takes the process with it, and systemd starts
it again from the journal. Models keep serving while the broker, the fleet or the disk is away.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import random
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from edgefleet_agent import identity as identities
from edgefleet_agent.adapters.board_facts import board, moment
from edgefleet_agent.adapters.command_file import CommandFile
from edgefleet_agent.adapters.folder_chunks import FolderChunks
from edgefleet_agent.adapters.host_metrics import (
    BoardSurroundings,
    HostMetrics,
    capabilities,
    hardware_class,
)
from edgefleet_agent.adapters.http_chunks import HttpChunks
from edgefleet_agent.adapters.journal import Journal
from edgefleet_agent.adapters.log_tail import LogTail
from edgefleet_agent.adapters.mqtt_chunks import MqttChunks
from edgefleet_agent.adapters.mqtt_link import MqttLink
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.adapters.systemd import Notifier
from edgefleet_agent.adapters.tls import Tls
from edgefleet_agent.adapters.tuf_client import TufClient
from edgefleet_agent.bundles import Bundles
from edgefleet_agent.command_acts import DeviceActs
from edgefleet_agent.commander import Commander
from edgefleet_agent.config import Config, TransferConfig
from edgefleet_agent.device import Device
from edgefleet_agent.enrol import TRUST_FOLDER
from edgefleet_agent.installer import Installer
from edgefleet_agent.keeper import TrustKeeper
from edgefleet_agent.measure_door import MeasureDoor
from edgefleet_agent.renewal import Renewal
from edgefleet_agent.reporter import FleetReporter
from edgefleet_agent.runtime.cgroups import take_over
from edgefleet_agent.runtime.choice import choose
from edgefleet_agent.runtime.engines import available
from edgefleet_agent.runtime.host import LocalHost
from edgefleet_agent.runtime.measuring import Ability
from edgefleet_agent.sources.config import IN_AGENT
from edgefleet_agent.sources.requests import Request
from edgefleet_agent.sources.supervisor import Sources
from edgefleet_agent.telemetry import model_telemetry
from edgefleet_agent.transfer.mover import Mover
from edgefleet_agent.transfer.pace import Pace
from edgefleet_agent.transfer.transport import Transport
from edgefleet_agent.unsealing import unsealer
from edgefleet_contract import messages
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.topics import Channel

log = logging.getLogger(__name__)

ASK_S: Final = 3600.0
"""How often the publishers are asked unasked."""
RETRY_S: Final = 60.0
"""How soon a control room that could not be reached is asked again for a certificate."""
REPORT_S: Final = 24 * 3600.0
"""How often the full state is sent unasked."""


def run(state: Path, config: Config) -> None:
    """Run the agent until SIGTERM or SIGINT.

    Raises:
        OperatorError: not enrolled, another agent has this state, a port is taken, a setting is
            wrong.
    """
    identity = identities.load(state)
    tail = LogTail()
    logging.getLogger().addHandler(tail)
    with _lock(state):
        try:
            asyncio.run(_run(state, config, identity, tail))
        except* OperatorError as group:
            raise _first(group) from None


async def _run(state: Path, config: Config, identity: identities.Identity, tail: LogTail) -> None:
    device, boot_id = identity.enrolment.device, uuid.uuid4().hex
    engines = usable_engines(config)
    hw = hardware_class()
    tls = Tls.of(identity, ca_file=config.http.ca_file)
    store = Store(state / "store")
    journal = Journal(state)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    notifier = Notifier()
    in_band = MqttChunks(device, window=config.transfer.window)
    async with (
        LocalHost(
            config.serving,
            zygote=config.runtime.zygote,
            engines=engines,
            accelerators=config.runtime.on(),
            groups=take_over(),
        ) as host,
        AsyncExitStack() as stack,
    ):
        able = capabilities(
            engines, hw, state=state, accelerators=config.runtime.on().named or ("cpu",)
        )
        reporter = FleetReporter(device=device, boot_id=boot_id, capabilities=able)
        floors = _Floors()
        keeper = TrustKeeper(
            TufClient(state / TRUST_FOLDER, identity.root),
            state,
            url=identity.enrolment.metadata,
            floors=lambda: floors.device().trust,
            time_floor=lambda: floors.device().time_floor,
            tls=tls,
        )
        surroundings = BoardSurroundings(metered=config.transfer.metered)
        bundles = Bundles(
            store=store,
            fetcher=mover(store, state, config.transfer, in_band, tls),
            publishers=lambda: keeper.publishers,
            choose=partial(
                choose,
                engines=engines,
                hw=hw,
                preference=config.runtime.engines,
                memory_mib=able.memory_bytes // 2**20,
            ),
            hw=hw,
            unseal=unsealer(identity),
        )
        installer = Installer(
            identity=identity,
            journal=journal,
            keeper=keeper,
            bundles=bundles,
            host=host,
            reporter=reporter,
            surroundings=surroundings,
            trial_timeout_s=config.runtime.trial_timeout_s,
        )
        if config.serving.measure.enabled:
            door = MeasureDoor(
                config.serving.measure,
                host,
                device=device,
                ability=Ability(engines, hw, config.runtime.engines),
                facts=board(engines, threads=config.serving.threads),
                moment=moment,
                publishers=lambda: keeper.publishers,
            )
            host.on_measure(door.hear)
            stack.push_async_callback(door.close)
        renewals: list[Renewal] = []
        answers: asyncio.Queue[bytes] = asyncio.Queue()
        refused = asyncio.Event()

        def hear_request(request: Request) -> None:
            _hand_over(loop, partial(sources.asked, request))

        def hear_command(raw: bytes) -> None:
            commander.arrived(raw)

        link = MqttLink(
            identity,
            config.mqtt,
            boot_id=boot_id,
            on_order=lambda raw: _hand_over(loop, partial(installer.order_arrived, raw)),
            on_trust=lambda name, raw: _hand_over(
                loop, partial(_hear, keeper, installer, identity.enrolment.fleet, name, raw)
            ),
            on_connected=lambda: _hand_over(loop, partial(_greet, reporter, renewals)),
            on_certificate=lambda raw: _hand_over(loop, partial(answers.put_nowait, raw)),
            on_block=in_band.arrived,
            on_expired=lambda: _hand_over(loop, refused.set),
            on_request=hear_request if _is_asked(config) else None,
            on_command=lambda raw: _hand_over(loop, partial(hear_command, raw)),
        )
        sources = Sources(
            config.sources,
            fleet=identity.enrolment.fleet,
            device=device,
            boot_id=boot_id,
            link=link,
            addresses=host.addresses,
            base=state,
            hidden=tuple(
                {identity.key.parent, identity.seal_key.parent, identity.authority.parent}
            ),
            zygote=host.forker,
        )
        commander = Commander(
            fleet=identity.enrolment.fleet,
            device=device,
            boot_id=boot_id,
            allow=config.commands.allow,
            keeper=keeper,
            file=CommandFile(state),
            acts=DeviceActs(
                name=device,
                boot_id=boot_id,
                state=state,
                able=able,
                models=installer,
                spec=bundles.spec,
                host=host,
                tail=tail,
                trial_timeout_s=config.runtime.trial_timeout_s,
            ),
            send=link.answer_command,
        )
        in_band.attach(link)
        renewal = Renewal(identity, link=link, tls=tls, clock=lambda: keeper.now)
        renewals.append(renewal)
        floors.device = lambda: installer.device
        reporter.attach(installer, link)
        surroundings.attach(link)
        async with asyncio.TaskGroup() as tasks:
            serving = asyncio.Event()
            running = [
                tasks.create_task(installer.run(serving)),
                tasks.create_task(_telemetry(host, sources, link, device, state, config)),
                tasks.create_task(_daily(reporter)),
                tasks.create_task(_ask_hourly(installer, renewal)),
                tasks.create_task(_renew(renewal, answers)),
            ]
            await serving.wait()
            notifier.send("READY=1", f"STATUS=serving {len(installer.running)} models")
            log.info("ready: %s of fleet %s", device, identity.enrolment.fleet)
            link.start()
            running.append(tasks.create_task(sources.run()))
            running.append(tasks.create_task(commander.run()))
            running.append(tasks.create_task(_watchdog(notifier)))
            running.append(tasks.create_task(_revive(renewal, refused)))
            await stop.wait()
            notifier.send("STOPPING=1")
            await asyncio.to_thread(link.stop)
            for task in running:
                task.cancel()


def mover(
    store: Store, state: Path, config: TransferConfig, in_band: MqttChunks, tls: Tls
) -> Mover:
    """The ways by which blobs come, in the configuration's order."""
    made: dict[str, Transport] = {
        "folder": FolderChunks(state, config.folders),
        "mirror": HttpChunks(mirrors=config.mirrors, tls=tls),
        "http": HttpChunks(tls=tls),
        "mqtt": in_band,
    }
    pace = Pace(config.max_bytes_per_s, config.hours)
    return Mover(store, [made[name] for name in config.order], pace=pace)


def usable_engines(config: Config) -> dict[str, str]:
    """The runtimes that are installed and that the configuration allows, name to version.

    In the configuration's order of preference, where it states one.

    Raises:
        OperatorError: there is none.
    """
    installed = available()
    wanted = config.runtime.engines or tuple(installed)
    usable = {name: installed[name] for name in wanted if name in installed}
    if not usable:
        asked = ", ".join(config.runtime.engines) or "any"
        raise OperatorError(
            f"no runtime for models: {asked} asked for, {', '.join(installed) or 'none'} installed",
            hint="pip install 'edgefleet[agent]'",
        )
    return usable


async def _telemetry(
    host: LocalHost,
    sources: Sources,
    link: MqttLink,
    device: str,
    state: Path,
    config: Config,
) -> None:
    board = HostMetrics(state)
    while True:
        await asyncio.sleep(config.telemetry.interval_s)
        link.publish(Channel.TELEMETRY_SYSTEM, messages.render(board.sample(device)))
        now = int(time.time() * 1000)
        for stats in host.stats(new_interval=True):
            message = model_telemetry(stats, device=device, ts_ms=now)
            link.publish(Channel.TELEMETRY_MODEL, messages.render(message))
        for counts in sources.telemetry(now):
            link.publish(Channel.TELEMETRY_SOURCE, messages.render(counts))


def _is_asked(config: Config) -> bool:
    return any(source.kind == IN_AGENT for source in config.sources)


async def _daily(reporter: FleetReporter) -> None:
    while True:
        await asyncio.sleep(REPORT_S)
        reporter.state()


def _greet(reporter: FleetReporter, renewals: list[Renewal]) -> None:
    reporter.greet()
    for renewal in renewals:
        renewal.ask_if_due()


async def _renew(renewal: Renewal, answers: asyncio.Queue[bytes]) -> None:
    while True:
        await asyncio.to_thread(renewal.take, await answers.get())


async def _revive(renewal: Renewal, refused: asyncio.Event) -> None:
    """Replace a certificate that has ended: at the start, hourly, and when the broker says so."""
    while True:
        is_refused = refused.is_set()
        is_done = await asyncio.to_thread(renewal.revive, is_refused=is_refused)
        if is_refused or not is_done:
            await asyncio.sleep(RETRY_S)
        refused.clear()  # what was said until now was said of the old one
        if is_done:
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_S * (0.9 + random.random() / 5)):
                    await refused.wait()


async def _ask_hourly(installer: Installer, renewal: Renewal) -> None:
    while True:
        await asyncio.sleep(ASK_S * (0.9 + random.random() / 5))
        installer.ask_publishers()
        renewal.try_again()


def _hear(keeper: TrustKeeper, installer: Installer, fleet: str, name: str, raw: bytes) -> None:
    """A retained document of the publishers, or the signed time."""
    if name == "time":
        keeper.learn_time(raw, fleet)
        return
    keeper.broker.put(name, raw)
    if name == "timestamp.json":  # it is sent last, and pins all the others
        installer.ask_publishers()


async def _watchdog(notifier: Notifier) -> None:
    """Signs of life from the event loop itself: a loop that hangs is killed and started again."""
    if not notifier.watchdog_s:
        return
    while True:
        notifier.send("WATCHDOG=1")
        await asyncio.sleep(notifier.watchdog_s / 3)


def _hand_over(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Run a call on the loop, from paho's thread; a loop that has ended needs no news."""
    with suppress(RuntimeError):  # it is closed, perhaps at this moment
        loop.call_soon_threadsafe(call)


def _first(group: BaseExceptionGroup[OperatorError]) -> OperatorError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


class _Floors:
    """The journal's state for the keeper, which exists before the installer does."""

    device: Callable[[], Device] = staticmethod(Device)


@contextmanager
def _lock(state: Path) -> Iterator[None]:
    """The state folder is one process's at a time."""
    # for reading: a disk that went read-only is no reason not to serve what is on it
    fd = os.open(state / "lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OperatorError(
            f"another agent runs with the state in {state}",
            hint="stop it (systemctl stop edge-agent), or choose another --state",
        ) from None
    else:
        yield
    finally:
        os.close(fd)
