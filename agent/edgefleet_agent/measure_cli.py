"""`edge-agent measure`: a job in, figures out, on a board where nothing else need run.

For who has a command line on the board, by ssh as a rule: they may run what they like there anyway,
so the job is not signed. A desk that hangs up ends it, and nothing is left behind. [recipe-15.4]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import select
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgefleet_agent import config as configs
from edgefleet_agent.adapters.board_facts import board, moment
from edgefleet_agent.daemon import usable_engines
from edgefleet_agent.ports import Failed, ModelSpec, TrialReport
from edgefleet_agent.runtime.measuring import Ability, least_bound
from edgefleet_agent.runtime.measuring import measure as run
from edgefleet_agent.runtime.trial_runner import try_model
from edgefleet_contract.errors import OperatorError, TransientError
from edgefleet_contract.measuring import MeasureJob, MeasureReport, Result, render_report
from edgefleet_contract.measuring_archive import read_archive, read_folder

MAX_BYTES: Final = 8 * 1024**3
_LOOK_S: Final = 0.5


def measure(args: argparse.Namespace) -> int:
    """Measure, and print the report."""
    config = configs.load(args.config, args.state)
    with _job(args.job) as (job, folder):
        try:
            report = asyncio.run(_measure(job, folder, config))
        except asyncio.CancelledError:
            raise TransientError("it was ended before all was measured") from None
    print(render_report(report).decode())  # noqa: T201 - results go to stdout
    return 0


@contextmanager
def _job(place: str) -> Iterator[tuple[MeasureJob, Path]]:
    """The job in a folder or in a tar; `-` reads that from standard input."""
    if place != "-" and Path(place).is_dir():
        yield read_folder(Path(place)), Path(place)
        return
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as name:
        folder = Path(name)
        try:
            if place == "-":
                job = read_archive(sys.stdin.buffer, folder, max_bytes=MAX_BYTES)
            else:
                with Path(place).open("rb") as file:
                    job = read_archive(file, folder, max_bytes=MAX_BYTES)
        except OSError as error:
            raise OperatorError(f"cannot take the job: {error.strerror}") from None
        yield job, folder


async def _measure(job: MeasureJob, folder: Path, config: configs.Config) -> MeasureReport:
    this = asyncio.current_task()
    assert this is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, this.cancel)
    listening = asyncio.create_task(_end_with_reader(this))
    serving = config.serving
    engines = usable_engines(config)
    facts, before = board(engines, threads=serving.threads), moment()

    async def attempt(spec: ModelSpec, timeout_s: float) -> TrialReport | Failed:
        return await try_model(
            spec,
            timeout_s=timeout_s,
            threads=serving.threads,
            data_mib=least_bound(job.memory_mib, serving.trial_data_mib),
            accelerators=config.runtime.on(),
            timing=(job.runs, float(job.seconds)),
        )

    def tell(result: Result) -> None:
        figures = result.figures
        told = f"p50 {figures.p50_us:.0f} µs" if figures else f"{result.reason}: {result.detail}"
        _say(f"round {result.round + 1} of {job.repeat}, {result.name}: {told}")

    ability = Ability(engines, facts.hw, config.runtime.engines)
    try:
        results = await run(job, folder, ability, attempt, tell=tell)
    finally:
        listening.cancel()
    return MeasureReport(facts, before, moment(), results)


async def _end_with_reader(work: asyncio.Task[MeasureReport]) -> None:
    """Cancel the work once nobody can read what we would print: the connection is gone."""
    watch = select.poll()
    watch.register(sys.stdout.fileno(), 0)  # POLLERR and POLLHUP are told in any case
    while not watch.poll(0):  # noqa: ASYNC110  # a closed pipe's reader is no event of the loop
        await asyncio.sleep(_LOOK_S)
    work.cancel()


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"edge-agent: {text}", file=sys.stderr)  # noqa: T201 - talk goes to stderr
