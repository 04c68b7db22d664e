"""Every real model of the table, in ONNX and TFLite, through the device's own runtime.

    python -m tests.models [--json] [--only NAME …]

A copy passes its trial with the plain runtime's answers as golden vectors, is served by a worker,
and is asked over HTTP with binary tensors: each answer must be the plain runtime's on the same
input, bit for bit, and the labelled set must come out as well as it has to. Packages are fetched
the first time. Writes docs/design/models.md, unless it was asked for some models only.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tests.models import mail, speech, tables, vision, wakeword
from tests.models.cache import Unavailable
from tests.models.report import line, render
from tests.models.squares import Row, rows_of
from tests.models.subject import Subject

PAGE = Path(__file__).parents[2] / "docs" / "design" / "models.md"

SUBJECTS: dict[str, Callable[[], Subject]] = {
    "digits": vision.digits,
    "mnist": vision.mnist,
    "cifar": vision.cifar,
    "silero": speech.silero,
    "alexa": wakeword.alexa,
    "spam-text": mail.text,
    "spam-hashed": mail.hashed,
    "iris": lambda: tables.table("iris"),
    "wine": lambda: tables.table("wine"),
    "tumours": tables.tumours,
    "forest": tables.forest,
    "power": lambda: tables.series("ItalyPowerDemand", 0.94),
    "gunpoint": lambda: tables.series("GunPoint", 0.92),
    "selfie": vision.selfie,
}
"""Those of the table, by a short name."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.models", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, help="some models")
    options = parser.parse_args()
    rows: list[Row] = []
    for name in options.only or SUBJECTS:
        begun = time.monotonic()
        try:
            made = rows_of(SUBJECTS[name]())
        except Unavailable as error:
            print(f"cannot be had: {error}", file=sys.stderr)
            return 1
        rows += made
        took = time.monotonic() - begun
        print(f"{name}: {took:.0f} s", *map(line, made), sep="\n", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))
    else:
        print(render(rows))
    if not options.only:
        PAGE.write_text(render(rows))
    return 0 if all(row.is_good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
