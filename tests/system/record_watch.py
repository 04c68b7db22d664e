"""`fleet push-model --watch` as a new user sees it: a real run in a terminal, recorded.

    python -m tests.system.record_watch docs/watch

Writes FILE.cast (asciinema's format, version 2: what the terminal was sent, and when) and FILE.svg
(its last picture). The control room, broker, bundle and command are real; the devices are scripted,
and speak MQTT to it.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from tests.contract.makers import write_bundle
from tests.system.fleet_kills import Trial, trial

WIDTH: Final = 92
HEIGHT: Final = 24
_TOKENS: Final = re.compile(r"(\r\n|\n|\r|\x1b\[2K|\x1b\[\d*A|\x1b\[\?25[lh])")


def main() -> int:
    """Record it."""
    where = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as root, trial(Path(root), seed=1) as found:
        said = record(found)
    header = {"version": 2, "width": WIDTH, "height": HEIGHT, "env": {"TERM": "xterm-256color"}}
    lines = [header, *([round(at, 3), "o", text] for at, text in said)]
    where.with_suffix(".cast").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    write_svg(where.with_suffix(".svg"), "".join(text for _, text in said))
    return 0


def record(found: Trial) -> list[tuple[float, str]]:
    """What a terminal was sent, with the seconds since its start."""
    folder = write_bundle(found.folder, found.publisher)
    words = ["push-model", folder.name, "--key", "publisher.pem"]
    words += ["--canary", found.devices[0].name, "--waves", "50,100", "--soak", "2s", "--watch"]
    said = [(0.0, f"$ fleet {' '.join(words)}\r\n")]
    start = time.monotonic()
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder.parent)
        Path("publisher.pem").symlink_to(found.fleet.key)
        more = {"FLEET_URL": found.fleet.url, "FLEET_TOKEN": found.fleet.token}
        command = [sys.executable, "-m", "edgefleet_fleet", *words]
        size = {"TERM": "xterm-256color", "COLUMNS": str(WIDTH), "LINES": str(HEIGHT)}
        os.execve(sys.executable, command, {**os.environ, **more, **size})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # the command ended, and the terminal with it
            break
        if not piece:
            break
        said.append((time.monotonic() - start, piece.decode("utf-8", "replace")))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0, "".join(text for _, text in said)
    return said


def write_svg(path: Path, said: str) -> None:
    """The last picture of what was said; no font is fetched from anywhere."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(last_picture(said)), soft_wrap=True)
    svg = console.export_svg(title="fleet push-model --watch")
    path.write_text(re.sub(r"\s*@font-face \{.*?\n\s*\}", "", svg, flags=re.DOTALL))


def last_picture(said: str) -> str:
    """What stands on a terminal in the end: a live table is drawn over itself again and again.

    >>> last_picture("a\\r\\nold\\r\\x1b[2Knew")
    'a\\nnew'
    """
    lines, row = [""], 0
    for token in _TOKENS.split(said):
        if token in ("\n", "\r\n"):
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token == "\x1b[2K":
            lines[row] = ""
        elif token.endswith("A") and _TOKENS.fullmatch(token):
            row = max(0, row - int(token[2:-1] or 1))
        elif not _TOKENS.fullmatch(token):
            lines[row] += token
    return "\n".join(lines).rstrip("\n")


if __name__ == "__main__":
    sys.exit(main())
