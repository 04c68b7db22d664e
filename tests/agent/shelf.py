"""A real HTTP server for blobs, with faults that can be switched on."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from edgefleet_contract import bundle as b


class Shelf(ThreadingHTTPServer):
    """Blobs by digest. `cut_after` bytes a response breaks off; `ranges` False ignores ranges."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, int]] = []
        self.cut_after: int | None = None
        self.ranges = True
        self.status = 200
        self.retry_after = ""
        self.endless = False
        self.making: dict[str, int] = {}
        """How often what a path names is still being made: 503, come back in a second."""

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed in the middle is no error here."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type] # as it came

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, raw: bytes) -> b.Digest:
        self.blobs[b.sha256(raw)] = raw
        return b.sha256(raw)

    def put_bundle(self, folder: Path) -> None:
        """All files of a bundle directory, and their chunk lists."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(path.read_bytes())
                self.put(b.chunk_list(path.read_bytes()))


class Handler(BaseHTTPRequestHandler):
    server: Shelf
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for the client to confirm its head

    def do_GET(self) -> None:
        shelf, digest = self.server, self.path.strip("/")
        first, _, last = self.headers.get("Range", "bytes=0-")[6:].partition("-")
        begin, end = int(first), int(last) + 1 if last else None
        shelf.requests.append((digest, begin))
        body = shelf.blobs.get(digest)
        status = shelf.status if body is not None else 404
        making = shelf.making.get(digest, 0)
        if making:
            shelf.making[digest] = making - 1
            status = 503
        begin, end = (begin, end) if shelf.ranges else (0, None)
        self.send_response(206 if status == 200 and (begin or end) else status)
        payload = (body or b"")[begin:end] if status == 200 else b""
        if shelf.endless:
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"\0" * 65536)
            except OSError:
                return
        if shelf.retry_after or making:
            self.send_header("Retry-After", shelf.retry_after or "1")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if shelf.cut_after is not None and len(payload) > shelf.cut_after:
            self.wfile.write(payload[: shelf.cut_after])
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
            return
        self.wfile.write(payload)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serve(port: int = 0) -> Iterator[Shelf]:
    """A shelf that answers until the block ends."""
    with Shelf(port) as shelf:
        thread = threading.Thread(target=shelf.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield shelf
        finally:
            shelf.shutdown()
            thread.join()
