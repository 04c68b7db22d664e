"""Binds the sockets that predictions arrive on.

The agent binds them and the front inherits them, so that a front that dies takes no address with
it: while it restarts, connections wait in the kernel instead of being refused.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from importlib import util
from pathlib import Path
from typing import Final

from edgefleet_contract.errors import OperatorError

_BACKLOG: Final = 512


def bind(address: str, *, open_to_network: bool = False) -> socket.socket:
    """A listening socket on `unix:/path` or `host:port`.

    Raises:
        OperatorError: spelled wrongly, taken, not allowed, or beyond loopback without a word.
    """
    if address.startswith("unix:"):
        return _bind_unix(Path(address.removeprefix("unix:")))
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise OperatorError(
            f"cannot listen on {address!r}: neither unix:/path nor host:port",
            hint="for example 127.0.0.1:8501",
        )
    return _bind_tcp(host.strip("[]"), int(port), open_to_network)


def check_grpc(address: str) -> None:
    """Hold the address for gRPC against what is allowed there, before the front binds it.

    Raises:
        OperatorError: it is beyond this machine, or the extra is not installed.
    """
    if not address.startswith("unix:"):
        bind(address).close()  # a word for what gRPC would only log
    if util.find_spec("grpc") is None:
        raise OperatorError(
            f"serving.grpc is {address!r}, and grpcio is not installed",
            hint="pip install 'edgefleet[grpc]'",
        )


def spell(sock: socket.socket) -> str:
    """The address of a bound socket, in the spelling that `bind` reads."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"


def release(sock: socket.socket) -> None:
    """Close a socket that `bind` made, and remove its file if it has one."""
    path = sock.getsockname() if sock.family == socket.AF_UNIX else ""
    sock.close()
    if path:
        Path(path).unlink(missing_ok=True)


def _bind_tcp(host: str, port: int, open_to_network: bool) -> socket.socket:
    where = f"{host}:{port}"
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise OperatorError(
            f"cannot listen on {where}: {error.strerror}", hint="name an address of this machine"
        ) from error
    if not open_to_network and not ipaddress.ip_address(target[0]).is_loopback:
        raise OperatorError(
            f"will not listen on {where}: nobody is asked who they are there",
            hint="[serving.lan] asks for a token or a certificate; open_to_network is for a proxy",
        )
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(target)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise _cannot(where, error) from error
    return sock


def _bind_unix(path: Path) -> socket.socket:
    _clear_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)
    try:
        sock.bind(str(path))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise _cannot(f"unix:{path}", error) from error
    finally:
        os.umask(before)
    return sock


def _clear_stale(path: Path) -> None:
    """Remove a socket that nobody listens on any more: what a power cut leaves."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise OperatorError(
                f"cannot listen on unix:{path}: a file that is no socket is there",
                hint="remove it, or choose another path",
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return
    except OSError as error:
        raise _cannot(f"unix:{path}", error) from error
    raise _cannot(f"unix:{path}", OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)))


def _cannot(where: str, error: OSError) -> OperatorError:
    hints = {
        errno.EADDRINUSE: "another program listens there (an agent already?): stop it, or choose"
        " another address",
        errno.EACCES: "ports below 1024 and folders of others need rights: choose another address",
        errno.ENOENT: "create the folder first",
        errno.EADDRNOTAVAIL: "this machine does not have that address",
    }
    return OperatorError(
        f"cannot listen on {where}: {error.strerror or error}",
        hint=hints.get(error.errno or 0, "choose another address"),
    )
