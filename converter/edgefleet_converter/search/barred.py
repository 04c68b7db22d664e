"""Why a candidate with dynamic ranges may not be taken, however good it is. Pure. [recipe-13.3]"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgefleet_contract.bundle import Format
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.fitting import Needs, fit
from edgefleet_converter.hardware import HardwareClass

BATCH_DEPENDS: Final = "its answers depend on what else is in the batch"
OLD_RUNTIME: Final = "tflite-runtime 2.14 does not run it, and hardware.classes names no boards"


def why_barred(
    kind: Format,
    needs: Needs,
    lowest: Mapping[str, str],
    classes: Mapping[str, HardwareClass],
    *,
    is_batch_fixed: bool,
) -> str:
    """The reason; empty where it may be taken.

    Args:
        kind: of the file.
        needs: its operators.
        lowest: the runtimes that bundles name for such files.
        classes: those that the bundle is for; none: any board.
        is_batch_fixed: the model takes one example a call.
    """
    if kind is Format.ONNX:
        return "" if is_batch_fixed else BATCH_DEPENDS
    try:
        found = fit(kind, needs, lowest, classes, what="the search")
    except OperatorError as error:
        return error.message
    return "" if classes or set(found.runtimes) == set(lowest) else OLD_RUNTIME
