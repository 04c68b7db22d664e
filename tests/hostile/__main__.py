"""`python -m tests.hostile`: every class, in full; ends with one line of JSON.

Talk goes to stderr, the line to stdout. The exit code is 1 where anything was accepted with another
meaning, left something behind, was refused for a reason that is not its own, or made a part die.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections import Counter

from tests.hostile.attempts import CLASSES, Ended, Verdict, judge
from tests.hostile.catalogue import load_classes
from tests.hostile.ground import ground

TICK_S = 0.2


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    load_classes()
    parser.add_argument("classes", nargs="*", help=f"of: {', '.join(CLASSES)}")
    options = parser.parse_args(argv)
    unknown = set(options.classes) - set(CLASSES)
    if unknown:
        parser.error(f"there is no class {min(unknown)!r}")
    logging.disable(logging.CRITICAL)  # refusals are logged; here they are counted
    verdicts: Counter[Verdict] = Counter()
    by_class: dict[str, int] = {}
    bad: list[Ended] = []
    with ground() as here:
        for name in options.classes or CLASSES:
            cls = CLASSES[name]
            began = last = time.monotonic()
            count = 0
            for attempt in cls.generate(here):
                ended = judge(cls, attempt)
                verdicts[ended.verdict] += 1
                count += 1
                if not ended.is_good:
                    bad.append(ended)
                if sys.stderr.isatty() and time.monotonic() - last > TICK_S:
                    last = time.monotonic()
                    sys.stderr.write(f"\r{name}: {count}\x1b[K")
            by_class[name] = count
            start = "\r\x1b[K" if sys.stderr.isatty() else ""
            sys.stderr.write(f"{start}{name:18} {count:6}  {time.monotonic() - began:6.1f} s\n")
    for ended in bad[:50]:
        sys.stderr.write(f"{ended.verdict}: {ended.cls}: {ended.name}: {ended.said}\n")
    line = {"tried": sum(verdicts.values()), **{word.value: verdicts[word] for word in Verdict}}
    print(json.dumps({**line, "by_class": by_class}))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
