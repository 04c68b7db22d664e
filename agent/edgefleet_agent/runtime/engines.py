"""Which runtimes this board has, and opening a model with one of them, by its name on the wire.

Looking is cheap: versions come from package metadata, and a runtime is imported only to be used.
"""

from __future__ import annotations

from importlib import metadata
from typing import Final

from edgefleet_agent.runtime.engine import CannotLoad, Session
from edgefleet_contract.bundle import Format

FORMATS: Final = {
    "onnxruntime": Format.ONNX,
    "litert": Format.TFLITE,
    "tflite-runtime": Format.TFLITE,
}
"""The runtimes that there are adapters for, best first, and the format that each runs."""

_PACKAGES: Final = {
    "onnxruntime": "onnxruntime",
    "litert": "ai-edge-litert",
    "tflite-runtime": "tflite-runtime",
}


def available() -> dict[str, str]:
    """The runtimes that are installed here and their versions, best first; imports none."""
    found: dict[str, str] = {}
    for engine, package in _PACKAGES.items():
        try:
            found[engine] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def preload(engine: str) -> None:
    """Import a runtime and the steps of programs, so that what they weigh by themselves can be told
    from what a model adds; forks share them.

    Raises:
        CannotLoad: it is unknown or does not import here.
    """
    try:
        import edgefleet_processing  # noqa: F401  # wanted for its import

        if engine == "onnxruntime":
            from edgefleet_agent.runtime import onnx_engine as _  # noqa: F401  # wanted for its import
        elif engine in FORMATS:
            from edgefleet_agent.runtime import tflite_engine

            tflite_engine.interpreter_of(engine)
        else:
            raise CannotLoad(f"no engine is called {engine!r}")
    except ImportError as error:
        raise CannotLoad(f"{engine} does not import here: {error}") from error


def open_session(engine: str, raw: bytes, *, threads: int) -> Session:
    """The model in `raw`, loaded.

    Raises:
        CannotLoad: the engine is not here, or does not take the model.
    """
    preload(engine)
    if engine == "onnxruntime":
        from edgefleet_agent.runtime.onnx_engine import OnnxSession

        return OnnxSession(raw, threads=threads)
    from edgefleet_agent.runtime.tflite_engine import TfliteSession

    return TfliteSession(raw, engine=engine, threads=threads)
