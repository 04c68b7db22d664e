"""systemd's notification protocol: ready, status, watchdog. Silent where systemd is not.

Protocol: sd_notify(3). A datagram of `KEY=value` lines to the socket in `$NOTIFY_SOCKET`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Tells the service manager how the process is."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the NUL byte of an abstract socket.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        microseconds = int(environ.get("WATCHDOG_USEC", "0"))
        mine = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = microseconds / 1e6 if mine else 0.0
        """The longest pause between two signs of life, s; 0 where none are expected."""

    def send(self, *lines: str) -> None:
        """Send `READY=1`, `STATUS=…`, `WATCHDOG=1`, `STOPPING=1`; nothing where nobody listens."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            try:
                sender.connect(self._address)
                sender.sendall("\n".join(lines).encode())
            except OSError:
                return  # the manager went away: there is nobody to tell
