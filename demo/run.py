"""`make demo`: the main job, from a trained model to predictions on three devices.

    python -m demo.run [--no-wait] [--out build/demo]

Everything is real: the converter, the signatures, the broker, the control room, three agents. The
figures in the table and in `report.json` are counted as they happen.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import monotonic

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from demo import steps
from demo.processes import DemoError, Processes, run
from demo.site import Demo


def play(demo: Demo) -> None:
    """Every step, in order."""
    run("edge-convert", "keys", "new", demo.key)
    versions = (1, 2, 3)
    with ThreadPoolExecutor(max_workers=2) as pool:
        with demo.step("train three digit classifiers on scikit-learn's 1,797 images"):
            trained = list(pool.map(partial(steps.train, demo), versions))
        with demo.step("convert to int8 ONNX and TFLite, measure, sign"):
            one, two, three = pool.map(partial(steps.convert, demo), trained, versions)
    steps.show_reports(demo, [one, two, three])
    with demo.step("start the control room: store, shelf, broker, API, page"):
        steps.start_fleet(demo)
    demo.console.print(f"  the page: [link]{page(demo)}[/link]")
    with demo.step("enrol three devices: one runs ONNX, two run TFLite"):
        steps.start_devices(demo)
    with demo.step("push version 1: verify, self-test, activate, report"):
        steps.push(demo, one)
        least, _ = steps.score(demo, trained[0], 1)
    with demo.step("push version 2 under continuous requests"):
        steps.swap(demo, two, trained[1])
    with demo.step("push what must be refused: tampered, unknown key, wrong golden outputs"):
        steps.refuse(demo, two, three)
    with demo.step("push version 6 while a device is off, then start it"):
        steps.converge(demo, three)
    with demo.step("ask again, and listen to the telemetry"):
        last, asked = steps.score(demo, trained[2], 6)
        heard = steps.listen(demo, asked)
    demo.report["accuracy_min"] = round(min(least, last), 4)
    demo.console.print(f"  {heard[:300]}", style="dim", soft_wrap=True, highlight=False)


def page(demo: Demo) -> str:
    """The page's address, with the operator's token."""
    return f"{demo.url}/?token={(demo.data / 'operator.token').read_text().strip()}"


def main() -> int:
    """Run the demo; the exit code."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__.splitlines()[0])
    parser.add_argument("--no-wait", action="store_true", help="end at the end")
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="the work folder")
    args = parser.parse_args()
    out: Path = args.out.absolute()
    shutil.rmtree(out, ignore_errors=True)
    (out / "logs").mkdir(parents=True)
    console = Console()
    demo = Demo(out, console, Processes(out / "logs"))
    began = monotonic()
    try:
        play(demo)
        finish(demo, monotonic() - began)
        if not args.no_wait:
            console.print(f"\nThe page stays open: {page(demo)}\nCtrl-C ends the demo.")
            demo.processes.wait_for("Ctrl-C", lambda: None, seconds=float("inf"))
    except DemoError as error:
        console.print(f"[red]demo: error:[/] {escape(str(error))}", highlight=False)
        console.print(f"demo: hint: the logs are in {out / 'logs'}", highlight=False)
        return 1
    except KeyboardInterrupt:
        pass  # that is how it ends
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second Ctrl-C leaves nothing
        demo.processes.stop_all()
    return 0


def finish(demo: Demo, seconds: float) -> None:
    """Write `report.json`, print the table."""
    demo.report["seconds"] = round(seconds, 1)
    path = demo.out / "report.json"
    path.write_text(json.dumps(demo.report, indent=2) + "\n")
    table = Table(title="What happened", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for what, found in demo.rows:
        table.add_row(what, found)
    table.add_row("all of it took", f"{seconds:.0f} s")
    demo.console.print(table)
    demo.console.print(f"the figures: {path}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
