"""A device that plays a script in a process of its own, and notes what it lives through."""

from __future__ import annotations

import asyncio

from edgefleet_agent import install, installer, performer, recovery, transitions
from edgefleet_agent.install_events import StepFailed
from edgefleet_agent.ports import BoardState
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.crash import board
from tests.crash.board import Board, left_over
from tests.crash.moments import What
from tests.crash.region import RELEASED, Region
from tests.crash.strikes import NEVER, Script, Stage, kill
from tests.crash.struck import (
    Noting,
    StruckHost,
    StruckWeather,
    Told,
    journal_of,
    mover_of,
    store_of,
)
from tests.crash.trouble import Fault, Faulty


class Actor(Board):
    """A board whose ports are a stage's."""

    def __init__(self, region: Region, stage: Stage) -> None:
        script, life = stage.script, stage.script.life
        self.disk = Faulty(life.disk or Fault.EIO_ONCE, 1 if life.disk else NEVER)
        super().__init__(
            script.folder,
            region,
            self.disk,
            host=StruckHost(stage),
            journal=journal_of(stage),
            store=store_of(stage),
            mover=mover_of(stage),
        )
        self.region, self.stage = region, stage
        self.heard, self.weather = Told(), StruckWeather()
        self.heard.stage = self.weather.stage = stage
        self.now = region.now if life.clock is None else life.clock
        stage.actor, stage.left = self, list(life.strikes)

    def build(self) -> None:
        super().build()
        self.stage.loop = asyncio.get_running_loop()
        self._queue = Noting()
        self._queue.heard = self.heard
        self.installer._queue = self._queue
        self.keeper.broker = self.region.sources[self.stage.script.life.says]  # type: ignore[assignment] # a source like any other

    @property
    def served(self) -> int | None:
        """The version that the runtime serves, whatever the agent believes."""
        assert isinstance(self.host, StruckHost)
        spec = self.host.serving.get("digits")
        return spec.version if spec else None

    @property
    def is_idle(self) -> bool:
        """Whether nothing will happen by itself any more."""
        work = self.installer._work
        return self._queue.is_waited_for and self._queue.empty() and (work is None or work.done())

    @property
    def has_complained(self) -> bool:
        """Whether it said that its disk is bad, or does not need it."""
        bad = (Reason.STORAGE_FAILED, Reason.NO_SPACE)
        return self.is_idle or any(reason in bad for _, reason, _ in self.heard.steps)

    def set_clock(self, now: float) -> None:
        """The board's clock is set."""
        self.now = now

    def order(self, name: str) -> None:
        """An order arrives."""
        self.installer.order_arrived(self.region.named[name])

    def say(self, source: str) -> None:
        """The publishers say something else, and the device hears of it."""
        self.keeper.broker = self.region.sources[source]  # type: ignore[assignment] # a source like any other
        self.installer.ask_publishers()


def live(region: Region, out: int, *, script: Script) -> None:
    """A life; what it was like is written to `out`."""
    installer.RETRY_S, transitions.MAX_BACKOFF_S, performer.WATCH_S = 0.05, 0.002, 0.002  # type: ignore[misc] # the same waits, but shorter
    match script.mutant:
        case "serves late":
            board.PATIENCE_S = 0.5  # type: ignore[misc] # it would be waited for in vain
            recovery.serve = lambda device: ()
        case "no way out":
            del install.TABLE[Phase.ROLLING_BACK, StepFailed]
    stage = Stage(script, out)
    try:
        asyncio.run(_live(region, stage))
    except Exception as error:  # noqa: BLE001 # whatever the agent dies of is what is looked for
        stage.note(What.DIED, detail=f"{error!r}"[:300])


async def _live(region: Region, stage: Stage) -> None:
    script, life = stage.script, stage.script.life
    async with Actor(region, stage) as device:
        stage.note(What.STARTED)
        if life.says != RELEASED:
            device.installer.ask_publishers()
        first, *more = script.orders
        device.weather.state = BoardState(on_mains=not more)
        device.order(first)
        for name in more:
            await device.until(lambda: device.installer.device.phase is Phase.WAIT_WINDOW)
            device.weather.state = BoardState(on_mains=True)
            device.order(name)
        if life.ends_early or life.mends:
            await device.until(lambda: device.has_complained)
        if life.ends_early:
            stage.note(What.KILLED)
            kill()
        if life.mends:
            device.disk.mend()
        await device.until(lambda: device.is_idle)
        stage.note(What.QUIET)
        if life.last:
            device.order(life.last)
            await device.until(lambda: device.is_idle)
            needless = device.bundles.collect(device.installer.device.kept)
            found = left_over(script.folder) + [f"{needless} blobs"] * bool(needless)
            stage.note(What.CLEAN, detail=", ".join(found))
