"""Which runtimes this board has, and opening a model with one of them, by its name on the wire.

Looking is cheap: versions come from package metadata, and a runtime is imported only to be used.
"""

from __future__ import annotations

from importlib import metadata
from typing import Final

from edgefleet_agent.runtime.chain import CPU, XNNPACK, AcceleratorSetup
from edgefleet_agent.runtime.engine import CannotLoad, Session, Weights
from edgefleet_contract.bundle import Format

FORMATS: Final = {
    "onnxruntime": Format.ONNX,
    "litert": Format.TFLITE,
    "tflite-runtime": Format.TFLITE,
}
"""The runtimes that there are adapters for, best first, and the format that each runs."""

_PACKAGES: Final = {
    "onnxruntime": (
        "onnxruntime",
        # the same for other accelerators, as their makers build it
        *(f"onnxruntime-{name}" for name in ("openvino", "qnn", "gpu", "rocm", "migraphx", "cann")),
    ),
    "litert": ("ai-edge-litert",),
    "tflite-runtime": ("tflite-runtime",),
}


def available() -> dict[str, str]:
    """The runtimes that are installed here and their versions, best first; imports none."""
    found: dict[str, str] = {}
    for engine, packages in _PACKAGES.items():
        versions = (version for package in packages if (version := _version(package)))
        if version := next(versions, ""):
            found[engine] = version
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


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


def open_session(
    engine: str,
    raw: bytes,
    *,
    threads: int,
    accelerator: str,
    setup: AcceleratorSetup = AcceleratorSetup(),  # noqa: B008  # frozen, and nobody changes it
    weights: Weights | None = None,
    is_optimized: bool = False,
) -> Session:
    """The model in `raw`, loaded on one accelerator.

    `weights` and `is_optimized` are for ONNX: see `OnnxSession`.

    It is what the runtime itself has under that name, else what a plug-in has.

    Raises:
        CannotLoad: the engine or the accelerator is not here, or does not take the model.
    """
    preload(engine)
    if engine == "onnxruntime":
        opened = _open_onnx(raw, threads, accelerator, setup, weights, is_optimized=is_optimized)
    else:
        opened = _open_tflite(engine, raw, threads, accelerator, setup)
    if opened is not None:
        return opened
    from edgefleet_agent.runtime.plug_in import open_with_plug_in

    return open_with_plug_in(
        accelerator,
        raw,
        engine=engine,
        format_=FORMATS[engine],
        threads=threads,
        options=setup.options,
    )


def _open_onnx(
    raw: bytes,
    threads: int,
    accelerator: str,
    setup: AcceleratorSetup,
    weights: Weights | None,
    *,
    is_optimized: bool,
) -> Session | None:
    from edgefleet_agent.runtime.onnx_engine import OnnxSession, provider_of

    provider = provider_of(accelerator)
    if provider is None:
        return None
    return OnnxSession(
        raw,
        threads=threads,
        provider=provider,
        options=setup.options,
        weights=weights,
        is_optimized=is_optimized,
    )


def _open_tflite(
    engine: str, raw: bytes, threads: int, accelerator: str, setup: AcceleratorSetup
) -> Session | None:
    from edgefleet_agent.runtime.tflite_engine import DELEGATES, TfliteSession, load_delegate

    library = setup.library or DELEGATES.get(accelerator, "")
    if not library and accelerator not in (CPU, XNNPACK):
        return None
    delegate = load_delegate(engine, library, setup.options) if library else None
    return TfliteSession(
        raw, engine=engine, threads=threads, delegate=delegate, plain=accelerator == CPU
    )
