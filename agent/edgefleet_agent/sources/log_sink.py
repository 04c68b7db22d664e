"""A line in the agent's log for each result: to see that something comes, not to keep it."""

from __future__ import annotations

from edgefleet_agent.sources.plugin import Answer, Setup


def available() -> str:
    """There is always a log."""
    return ""


def open(setup: Setup) -> LogSink:  # noqa: A001  # the word of the Protocol
    """A sink that tells the agent."""
    return LogSink(setup)


class LogSink:
    """See above. Of scores the class, of one number the number, of anything else its shape."""

    def __init__(self, setup: Setup) -> None:
        self._tell = setup.tell

    def send(self, answer: Answer, cause: str) -> None:
        """Say it in a few words."""
        words = [f"{name} {_words(array)}" for name, array in answer.outputs.items()]
        self._tell({"say": f"{answer.slot}@{answer.version}: {', '.join(words)} ({cause})"})

    def close(self) -> None:
        """Nothing is open."""


def _words(array: object) -> str:
    import numpy as np

    found = np.asarray(array)
    if found.dtype.kind in "fiu" and found.size == 1:
        return f"{found.item():.6g}"
    if found.dtype.kind in "fiu" and found.ndim == 2 and found.shape[0] == 1 and found.size:
        top = int(found[0].argmax())
        return f"class {top} of {found.shape[1]} ({found[0, top]:.4g})"
    return f"of shape {list(found.shape)}"
