"""The process of one source: opens it and its sink, and pumps until it ends or the agent does.

Run as `python -m edgefleet_agent.sources.runner`, or a fork of the zygote. It is told its job over
the control channel, and tells `opened`, counts, results, and why it cannot go on. It asks the
agent's socket like any client; it has no key and no connection of its own, and where the kernel can
(`hiding.py`) the files with the keys are out of its reach before a plug-in's code runs.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from edgefleet_agent.runtime import child
from edgefleet_agent.sources import kinds
from edgefleet_agent.sources.config import SinkConfig
from edgefleet_agent.sources.hiding import CannotHide, hide
from edgefleet_agent.sources.plugin import Setup, SinkKind, SourceKind
from edgefleet_agent.sources.pump import Counts, Model, Pump, Stopped
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import EdgefleetError

_BEAT_S: Final = 0.5
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Line:
    """What is said to the agent, by any thread; one hears that the agent hung up."""

    control: child.Control
    counts: Counts = field(default_factory=Counts)
    stopped: threading.Event = field(default_factory=threading.Event)
    said: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, message: dict[str, Any]) -> None:
        """One message."""
        with self.lock:
            self.control.send(**message)

    def beat(self) -> None:
        """A sign of life, with the counts, twice a second.

        Raises:
            Stopped: the agent wants an end.
        """
        if self.stopped.is_set():
            raise Stopped
        if time.monotonic() - self.said >= _BEAT_S:
            self.said = time.monotonic()
            self.tell({"counts": asdict(self.counts)})

    def listen(self) -> None:
        """Wait for the agent to hang up."""
        with suppress(SystemExit, OSError, ValueError):
            self.control.receive()
        self.stopped.set()


def run(job: Mapping[str, Any], line: Line) -> None:
    """Open, pump, close.

    Raises:
        Exception: whatever the source or the sink raised.
    """
    with ExitStack() as opened:
        model = opened.enter_context(closing(Model(job["address"], job["model"], beat=line.beat)))
        setup = Setup(
            name=job["name"],
            options=job["options"],
            every_s=job["every_s"],
            base=Path(job["base"]),
            describe=model.describe,
            tell=line.tell,
        )
        told = job["sink"]
        is_ours = kinds.is_built_in(kinds.SOURCES, job["kind"]) and (
            told is None or kinds.is_built_in(kinds.SINKS, told["kind"])
        )
        if not is_ours:  # before any of its code
            _hide(job["hidden"])
        kind: SourceKind = kinds.load(kinds.SOURCES, job["kind"])
        source = opened.enter_context(closing(kind.open(setup)))
        sink, rule = None, None
        if told is not None:
            where: SinkKind = kinds.load(kinds.SINKS, told["kind"])
            sink = opened.enter_context(
                closing(where.open(replace(setup, options=told["options"])))
            )
            rule = SinkConfig(**told)
        if is_ours:  # it made its folders first
            _hide(job["hidden"])
        line.tell({"opened": True})
        pump = Pump(job["name"], source, model, sink, rule, line.counts, beat=line.beat)
        pump.run(is_live=bool(kind.IS_LIVE), queue=job["queue"])
        line.tell({"counts": asdict(line.counts)})
        line.tell({"ended": True})


def _hide(paths: list[str]) -> None:
    try:
        hide(Path(path) for path in paths)
    except CannotHide as error:
        _log.warning("the files with the keys are not hidden: %s", error)


def main(argv: list[str]) -> None:
    """Be told, run, and say why it ends."""
    logging.basicConfig(level=logging.WARNING, format="source: %(message)s")
    fds = child.arguments(argv)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    control = child.Control(fds["control"])
    job: dict[str, Json] = control.receive()
    line = Line(control)
    threading.Thread(target=line.listen, name="listener", daemon=True).start()
    try:
        run(job, line)
    except Stopped:
        pass
    except EdgefleetError as error:
        hint = f" ({error.hint})" if error.hint else ""
        line.tell({"refused": f"{error.message}{hint}"})
        raise SystemExit(1) from None
    except BrokenPipeError:
        pass  # the agent is gone
    finally:
        sys.stderr.flush()
    os._exit(0)  # a reader that hangs in a camera is not waited for


if __name__ == "__main__":
    main(sys.argv)
