"""Runs Mosquitto for the fleet: writes its configuration, starts it, keeps it up, takes it down.

The broker dies with the service (the kernel tells it, so `kill -9` of the service too) and is
started again, with back-off, when it dies by itself. A broker of one's own is configured by
`[broker]` instead; then nothing here runs.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ctypes
import logging
import os
import shutil
import signal
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgefleet_contract.errors import OperatorError
from edgefleet_contract.topics import (
    FROM_DEVICE,
    PREDICT_REQUESTS,
    PREDICT_RESPONSES,
    PREFIX,
    RESULTS,
    TO_DEVICE,
    trust_topic,
)
from edgefleet_fleet.authority import OBSERVER, REQUESTER, SERVICE
from edgefleet_fleet.datadir import DataDir, write_file

log = logging.getLogger("edgefleet.broker")

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)  # loaded now: nothing may be loaded after a fork
_RESTART_S: Final = 15.0
_BACKOFF: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Mosquitto:
    """One broker process, from `start` until the task of `keep` is cancelled."""

    def __init__(self, data: DataDir, *, fleet: str, listen: str, port: int) -> None:
        self._data = data
        self._fleet = fleet
        self._listen = listen
        self.port = port
        self._process: asyncio.subprocess.Process | None = None
        self._last_words: deque[str] = deque(maxlen=5)
        self._ended_by_us = False
        self._is_running = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return self._process.pid if self._process is not None else None

    async def start(self, *, patience_s: float = 3.0) -> None:
        """Start the broker and wait until it accepts connections.

        Raises:
            OperatorError: Mosquitto is not installed, the port is taken, or it does not start.
        """
        program = find_program()
        await self._wait_for_port(patience_s)
        self._write_configuration()
        self._last_words.clear()
        parent = os.getpid()
        self._process = await asyncio.create_subprocess_exec(
            program,
            "-c",
            str(self._data.broker / "mosquitto.conf"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C at the terminal is the service's to handle
            preexec_fn=lambda: _die_with(parent),
        )
        reader = asyncio.create_task(self._listen_to(self._process))
        if not await self._is_up(self._process):
            await self.stop()
            await reader
            words = " | ".join(self._last_words) or "it said nothing"
            raise OperatorError(f"mosquitto does not start: {words}")
        self._is_running.set()
        log.info("broker: listening on %s:%d", self._listen, self.port)

    async def keep(self) -> None:
        """Start the broker again whenever it dies; ends only by being cancelled."""
        failures = 0
        try:
            while True:
                assert self._process is not None
                code = await self._process.wait()
                self._is_running.clear()
                if not self._ended_by_us:
                    log.warning("broker: died with %d: %s", code, " | ".join(self._last_words))
                while True:
                    if not self._ended_by_us:
                        await asyncio.sleep(_BACKOFF[min(failures, len(_BACKOFF) - 1)])
                    self._ended_by_us = False
                    failures += 1
                    try:
                        await self.start()
                    except OperatorError as error:
                        log.error("broker: %s", error.message)
                    else:
                        failures = 0
                        break
        finally:
            await self.stop()

    async def restart(self) -> None:
        """End the broker and wait until `keep` has it running again, with the newest files.

        A reload (SIGHUP) would not do: whoever was revoked would stay connected, or could resume a
        TLS session that was agreed before. Clients reconnect by themselves; sessions are kept.
        """
        await self._is_running.wait()
        assert self._process is not None
        self._is_running.clear()
        self._ended_by_us = True
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        await self._is_running.wait()

    def restarter(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        """`restart` for other threads than the loop's: returns when it is done."""

        def restart() -> None:
            try:
                asyncio.run_coroutine_threadsafe(self.restart(), loop).result(_RESTART_S)
            except (TimeoutError, concurrent.futures.CancelledError):
                log.warning("broker: not back yet after %.0f s", _RESTART_S)

        return restart

    async def stop(self) -> None:
        """Take the broker down; it saves its retained messages."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _wait_for_port(self, patience_s: float) -> None:
        # The broker of a service that was just killed may still be saving its state.
        deadline = asyncio.get_running_loop().time() + patience_s
        while not _is_free(self._listen, self.port):
            if asyncio.get_running_loop().time() > deadline:
                raise OperatorError(
                    f"port {self.port} is taken, so the broker cannot listen there",
                    hint="stop what listens there, or choose another with --mqtt-port",
                )
            await asyncio.sleep(0.1)

    async def _is_up(self, process: asyncio.subprocess.Process) -> bool:
        host = "127.0.0.1" if self._listen in ("", "0.0.0.0", "::") else self._listen  # noqa: S104
        for _ in range(200):
            if process.returncode is not None:
                return False
            try:
                _, writer = await asyncio.open_connection(host, self.port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            with contextlib.suppress(OSError):  # it accepted, and that was the question
                await writer.wait_closed()
            return True
        return False

    async def _listen_to(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            text = line.decode("utf-8", "replace").strip()
            text = text.partition(": ")[2] or text
            self._last_words.append(text)
            log.debug("broker: %s", text)

    def _write_configuration(self) -> None:
        folder = self._data.broker
        acl = folder / "acl"
        write_file(acl, acl_text(self._fleet).encode(), mode=0o600)
        text = configuration_text(
            self._data, acl=acl, listen=self._listen, port=self.port, is_root=os.geteuid() == 0
        )
        write_file(folder / "mosquitto.conf", text.encode(), mode=0o600)


def find_program() -> str:
    """Where Mosquitto is installed.

    Raises:
        OperatorError: nowhere.
    """
    found = shutil.which(
        "mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    )
    if found is None:
        raise OperatorError(
            "mosquitto, the MQTT broker, is not installed",
            hint="sudo apt-get install mosquitto, or use a broker of your own: "
            "[broker] url = 'mqtts://…' in fleet.toml",
        )
    return found


def acl_text(fleet: str) -> str:
    """Who may read and write which topics; `%u` is the common name of the client certificate."""
    lines = [
        "# Written by `fleet serve`; changes are lost.",
        f"user {SERVICE}",
        f"topic readwrite {PREFIX}/#",
        "",
        f"user {OBSERVER}",
        f"topic read {PREFIX}/#",
        "",
        f"user {REQUESTER}",
        f"topic write {PREFIX}/{fleet}/+/{PREDICT_REQUESTS}",
        *(f"topic read {PREFIX}/{fleet}/+/{found}" for found in (PREDICT_RESPONSES, RESULTS)),
        "",
        "# A device: its own topics only.",
        *(f"pattern read {PREFIX}/{fleet}/%u/{found}" for found in (*TO_DEVICE, PREDICT_REQUESTS)),
        f"pattern read {trust_topic(fleet, '#')}",
    ]
    mine = (*FROM_DEVICE, PREDICT_RESPONSES, RESULTS)
    lines += [f"pattern write {PREFIX}/{fleet}/%u/{found}" for found in mine]
    # The streams of telemetry that newer agents may add.
    lines += [f"pattern write {PREFIX}/{fleet}/%u/telemetry/#", ""]
    return "\n".join(lines)


def configuration_text(data: DataDir, *, acl: Path, listen: str, port: int, is_root: bool) -> str:
    """The broker's configuration: mutual TLS, nothing anonymous, nothing lost."""
    where = f" {listen}" if listen else ""
    user = (
        "# As root, mosquitto would become user `mosquitto` and then could not read the keys.\n"
        "user root\n"
        if is_root
        else ""
    )
    return f"""# Written by `fleet serve`; changes are lost.
{user}per_listener_settings false
listener {port}{where}
protocol mqtt
allow_anonymous false

# Who a client is stands in its certificate, and nowhere else: not in a user name that it sends,
# and not in a client id, with which it could push another device off.
cafile {data.keys / "ca.pem"}
certfile {data.keys / "broker.crt"}
keyfile {data.keys / "broker.key"}
crlfile {data.revocations}
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
use_username_as_clientid true
acl_file {acl}

# All that it holds is written once a minute; what a kill -9 takes of that minute, devices and fleet
# say again when they connect. A slow reader's queue is not cut off.
persistence true
persistence_location {data.broker}/
autosave_interval 60
autosave_on_changes false
persistent_client_expiration 14d
max_queued_messages 0
max_queued_bytes 0
max_inflight_messages 200
max_packet_size 1048576
set_tcp_nodelay true

log_dest stderr
log_type error
log_type warning
log_type notice
connection_messages false
"""


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _die_with(parent: int) -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died between the fork and the line above
        os._exit(1)
