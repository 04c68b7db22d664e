"""Accelerators that other packages bring: entry points of the group `edgefleet.accelerators`.

A plug-in is imported where its name is asked for, in the process that runs the model (trial,
worker, shadow): never in the agent, the front or the zygote. Whatever it raises is a reason to pass
it over. What it does to the process beyond that (a crash, a hang) it does to that process alone.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Final, Protocol

from edgefleet_agent.runtime.engine import CannotLoad, CannotRun, Session, Tensors
from edgefleet_contract.bundle import TensorSpec

GROUP: Final = "edgefleet.accelerators"


class Accelerator(Protocol):
    """What an entry point leads to: a class, or anything that gives such an object when called."""

    formats: tuple[str, ...]
    """The model formats that it takes: `onnx`, `tflite`."""

    def probe(self) -> str:
        """Why it cannot be used on this board now, in one line; empty where it can."""
        ...

    def open(self, raw: bytes, *, engine: str, threads: int, options: dict[str, str]) -> Session:
        """The model in `raw`, loaded.

        Args:
            raw: the file, verified.
            engine: the runtime that was chosen for it, for those that use it.
            threads: of one inference, for what runs on the processor.
            options: from `[runtime.setup.<name>]`.

        Raises:
            Exception: it does not take this model; the next in the chain is tried.
        """
        ...


class PlugInSession:
    """A session of a plug-in. What it raises is a `CannotRun`, as of any other runtime."""

    def __init__(self, name: str, session: Session) -> None:
        self._name, self._session = name, session
        self.inputs: tuple[TensorSpec, ...] = tuple(session.inputs)
        self.outputs: tuple[TensorSpec, ...] = tuple(session.outputs)

    def run(self, feeds: Tensors) -> Tensors:
        """See `Session.run`."""
        try:
            found = self._session.run(feeds)
            return {spec.name: found[spec.name] for spec in self.outputs}
        except (CannotRun, MemoryError):
            raise
        except Exception as error:  # a stranger's code: it may raise anything
            raise CannotRun(f"{self._name}: {_one_line(error)}") from error


def open_with_plug_in(
    name: str, raw: bytes, *, engine: str, format_: str, threads: int, options: dict[str, str]
) -> Session:
    """The model in `raw`, opened by the plug-in of this name.

    Raises:
        CannotLoad: there is none, it is for another format, says that it cannot be used here,
            does not take the model, or raises anything else.
    """
    found = tuple(entry_points(group=GROUP, name=name))
    if not found:
        raise CannotLoad(f"neither {engine} nor a plug-in has it")
    try:
        plug_in: Accelerator = found[0].load()()
        if format_ not in plug_in.formats:
            raise CannotLoad(f"takes {', '.join(plug_in.formats)}, not {format_}")
        if why := plug_in.probe():
            raise CannotLoad(why)
        return PlugInSession(
            name, plug_in.open(raw, engine=engine, threads=threads, options=options)
        )
    except (CannotLoad, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise CannotLoad(f"{type(error).__name__}: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
