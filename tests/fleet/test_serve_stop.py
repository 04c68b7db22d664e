"""The end of the service: nothing new, what runs is finished, and nobody is answered with a 500."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
import requests
from fastapi import FastAPI
from starlette.types import Message, Scope

from edgefleet_contract.bundle import sha256
from edgefleet_contract.errors import TransientError
from edgefleet_contract.keys import PrivateKey
from edgefleet_fleet.config import Config
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.push import read_bundle
from edgefleet_fleet.site import Fleet as FleetOfSite
from edgefleet_fleet.site import Site
from edgefleet_fleet.site_app import SiteApp
from edgefleet_fleet.threads import MOST, Threads
from tests.contract.makers import write_bundle
from tests.fleet.running import Fleet, free_port, require, until

_HALF = 100_000
_PATIENT = """
from edgefleet_fleet import server
from edgefleet_fleet.__main__ import main
server._FINISH_S = 60  # what is shown here depends on no machine's speed
raise SystemExit(main())
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """`fleet serve`, which waits longer for requests than it does else."""
    require("mosquitto", "mosquitto")
    found = Fleet(tmp_path / "fleet", free_port(), free_port(), program=("-c", _PATIENT))
    found.start()
    try:
        yield found
    finally:
        assert found.process is not None
        if found.process.poll() is None:
            found.kill()


@pytest.mark.system
def test_a_stop_finishes_the_request_that_runs_and_ends_the_streams(
    fleet: Fleet, publisher: PrivateKey, tmp_path: Path
) -> None:
    content = b"x" * (2 * _HALF)
    digest = announced(fleet, write_bundle(tmp_path, publisher, content=content), content)
    headers = {"Authorization": f"Bearer {fleet.token}"}
    with (
        requests.get(f"{fleet.url}/api/v1/events", headers=headers, stream=True) as stream,
        contextlib.closing(HTTPConnection("127.0.0.1", fleet.http_port)) as upload,
    ):
        told = stream.iter_lines()
        assert next(told) == b": hello"
        upload.putrequest("PUT", f"/api/v1/blobs/{digest}")
        for name, value in (*headers.items(), ("Content-Length", str(len(content)))):
            upload.putheader(name, value)
        upload.endheaders(content[:_HALF])
        until(lambda: fleet.client.get(f"/blobs/{digest}/upload")["offset"] == _HALF)
        assert fleet.process is not None
        fleet.process.send_signal(signal.SIGTERM)
        assert all(not line or line.startswith((b"event", b"data", b":")) for line in told)
        until(lambda: not takes_connections(fleet), timeout=60)
        upload.send(content[_HALF:])
        answer = upload.getresponse()
        assert (answer.status, answer.read()) == (200, answered(digest, content))
    assert fleet.process.wait(60) == 0
    assert fleet.stop() == 0  # it has ended: only its output is closed
    assert "Traceback" not in fleet.log.read_text()


def announced(fleet: Fleet, folder: Path, content: bytes) -> str:
    """The digest of a file of a bundle that the fleet was told of."""
    fleet.trust(PrivateKey.generate_p256())
    bundle = read_bundle(folder)
    told = (("manifest", bundle.manifest_bytes), ("signature", bundle.signature))
    body = {name: base64.b64encode(raw).decode() for name, raw in told}
    missing = fleet.client.post("/bundles", {**body, "check": False})["missing"]
    digest = sha256(content)
    assert digest in [blob["sha256"] for blob in missing]
    return digest


def takes_connections(fleet: Fleet) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", fleet.http_port)):
        return True
    return False


def answered(digest: str, content: bytes) -> bytes:
    return f'{{"sha256":"{digest}","size":{len(content)}}}'.encode()


async def _never(_site: Site, _fleet: FleetOfSite, _config: Config) -> None:
    raise AssertionError("nothing is started here")


def test_a_request_that_is_cut_off_is_told_to_ask_again(tmp_path: Path) -> None:
    said: list[Message] = []

    async def story() -> None:
        entered, never = asyncio.Event(), asyncio.Event()
        app = FastAPI()

        @app.get("/slow")
        async def slow() -> None:
            entered.set()
            await never.wait()

        async def receive() -> Message:
            await never.wait()
            raise AssertionError("never")

        async def send(message: Message) -> None:
            said.append(message)

        site = Site(DataDir(tmp_path), Config(), base_url="", live=_never)
        site.own.app = app
        scope: Scope = {"type": "http", "method": "GET", "path": "/slow", "headers": []}
        scope |= {"query_string": b"", "root_path": "", "http_version": "1.1"}
        task = asyncio.create_task(SiteApp(site)(scope, receive, send))
        await entered.wait()
        task.cancel()
        await task

    asyncio.run(story())
    assert said[0]["status"] == 503
    assert (b"retry-after", b"15") in said[0]["headers"]
    assert b"being stopped" in said[1]["body"]


def test_what_no_thread_took_when_a_fleet_was_taken_down_is_told_so() -> None:
    release = threading.Event()

    async def story() -> None:
        threads = Threads()
        for _ in range(sum(MOST.values())):
            threads._pool.submit(release.wait)
        asked = asyncio.create_task(threads.ask(int))
        await asyncio.sleep(0)  # it is in the row now
        await threads.close(patience_s=0)
        with pytest.raises(TransientError, match="taken down"):
            await asked

    try:
        asyncio.run(story())
    finally:
        release.set()
