"""A board that one may log in to: the job goes to `edge-agent measure` there, by the user's ssh.

What ssh is told of hosts, keys and users stands in its own configuration. It asks nobody anything
(`BatchMode`): a build waits for no password.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import Malformed, OperatorError, TransientError
from edgefleet_contract.measuring import MeasureJob, MeasureReport, parse_report
from edgefleet_contract.measuring_archive import write_archive
from edgefleet_converter.boards.places import Ssh

VARIABLE: Final = "EDGE_CONVERT_SSH"
_CANNOT_CONNECT: Final = 255
_NO_PROGRAM: Final = 127
_SPARE_S: Final = 120


def command_of(place: Ssh, environ: Mapping[str, str]) -> list[str]:
    """The command line of ssh; what `EDGE_CONVERT_SSH` names instead of it, with its options. Pure.

    >>> command_of(Ssh("cam-1", "pi", 2222), {})[-6:]
    ['-p', '2222', '-l', 'pi', '--', 'cam-1']
    """
    ssh = shlex.split(environ.get(VARIABLE, "")) or ["ssh"]
    port = ["-p", str(place.port)] if place.port else []
    user = ["-l", place.user] if place.user else []
    # A master that stays behind would hold our pipes open.
    plain = ("BatchMode=yes", "ControlMaster=no", "ServerAliveInterval=15")
    options = [word for option in plain for word in ("-o", option)]
    return [*ssh, "-T", *options, *port, *user, "--", place.host]


def measure_by_ssh(
    place: Ssh, job: MeasureJob, places: Mapping[Digest, Path], told: Callable[[str], None]
) -> MeasureReport:
    """What a board says of a job.

    Args:
        place: the board.
        job: what to measure.
        places: its files.
        told: told every line that the agent says meanwhile.

    Raises:
        OperatorError: the board cannot be logged in to, has no agent, or refuses.
        TransientError: the connection broke off.
    """
    command = [*command_of(place, os.environ), f"{place.program} measure -"]
    within_s = _SPARE_S + job.timeout_s * job.repeat * len(job.candidates)
    with tempfile.TemporaryFile() as tar, tempfile.TemporaryFile() as out:
        write_archive(job, places, tar)
        tar.seek(0)
        try:
            process = subprocess.Popen(
                command, stdin=tar, stdout=out, stderr=subprocess.PIPE, text=True, errors="replace"
            )
        except OSError as error:
            raise OperatorError(f"cannot start {command[0]}: {error.strerror}") from None
        timer = threading.Timer(within_s, process.kill)
        timer.start()
        with process:
            try:
                last = _listen(process, told)
                code = process.wait()
            finally:
                is_late = timer.finished.is_set()
                timer.cancel()
                process.kill()  # does nothing where it has ended
        out.seek(0)
        said = out.read()
    if is_late:
        raise TransientError(f"{place.host} did not answer within {within_s} s")
    if code:
        raise _failed(place, code, last)
    try:
        return parse_report(said, what=f"the report of {place.host}")
    except Malformed as error:
        raise OperatorError(
            error.message, hint=f"is {place.program} there of this version?"
        ) from None


def _listen(process: subprocess.Popen[str], told: Callable[[str], None]) -> str:
    """Pass on what is said until it ends; the last error of it."""
    assert process.stderr is not None
    last = ""
    for line in process.stderr:
        text = line.strip()
        last = text.removeprefix("edge-agent: ") if "hint: " not in text and text else last
        if text:
            told(text)
    return last


def _failed(place: Ssh, code: int, last: str) -> OperatorError | TransientError:
    if code == _CANNOT_CONNECT:
        return TransientError(
            f"ssh to {place.host}: {last or 'no connection'}",
            hint=f"`ssh {place.host} true` has to work without a question",
        )
    if code == _NO_PROGRAM:
        return OperatorError(
            f"{place.host} has no {place.program}",
            hint="pip install 'edgefleet[agent]' there, or ssh://HOST/path/to/edge-agent",
        )
    return OperatorError(f"{place.host}: {last or f'exit code {code}'}")
