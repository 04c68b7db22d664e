"""Uploads that break off and go on, and bundles that come and go, over real HTTP."""

from __future__ import annotations

import contextlib
import io
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from edgefleet_contract.bundle import Digest, sha256
from edgefleet_contract.errors import Malformed
from edgefleet_contract.keys import PrivateKey
from edgefleet_fleet import push, registry
from edgefleet_fleet.api import create_app
from edgefleet_fleet.client import Client
from edgefleet_fleet.errors import Conflict, NotFound
from edgefleet_fleet.services import Services
from tests.contract.makers import write_bundle
from tests.fleet import stage as stages
from tests.fleet.stage import ME, TOKEN, Stage
from tests.fleet.web import serving


@pytest.fixture
def client(services: Services) -> Iterator[Client]:
    with serving(create_app(services)) as web:
        yield Client(web.base, TOKEN)


class Announced:
    """A bundle that was announced, and the first of its blobs."""

    def __init__(self, services: Services, folder: Path) -> None:
        received = stages.receive(services, folder)
        self.bundle = received.bundle
        blob = max(received.missing, key=lambda file: file.size)
        self.digest, self.raw = blob.sha256, (folder / blob.path).read_bytes()


@pytest.fixture
def announced(services: Services, publisher: PrivateKey, tmp_path: Path) -> Announced:
    return Announced(services, write_bundle(tmp_path / "bundle", publisher))


def parts(services: Services) -> list[Path]:
    return list(services.room.keys.uploads.iterdir())


def test_an_upload_that_broke_off_goes_on_where_it_ended(
    services: Services, client: Client, announced: Announced
) -> None:
    half = len(announced.raw) // 2
    parts_url = urlsplit(client.url)
    with socket.create_connection((parts_url.hostname, parts_url.port)) as sock:  # type: ignore[type-var]
        head = (
            f"PUT /api/v1/blobs/{announced.digest} HTTP/1.1\r\nhost: x\r\n"
            f"authorization: Bearer {TOKEN}\r\ncontent-length: {len(announced.raw)}\r\n\r\n"
        )
        sock.sendall(head.encode() + announced.raw[:half])
        while client.get(f"/blobs/{announced.digest}/upload")["offset"] < half:
            pass
    size = None
    while size is None:  # the service learns that it broke off
        with contextlib.suppress(Conflict):
            source = io.BytesIO(announced.raw[half:])
            size = services.uploads.put(announced.digest, source, offset=half)
    assert size == len(announced.raw)
    assert services.room.shelf.has(announced.digest)
    assert parts(services) == []
    assert client.get(f"/blobs/{announced.digest}/upload")["offset"] == len(announced.raw)


def test_the_client_sends_the_rest_and_says_how_far_it_is(
    services: Services, client: Client, publisher: PrivateKey, tmp_path: Path
) -> None:
    folder = write_bundle(tmp_path / "bundle", publisher)
    announced = Announced(services, folder)
    with pytest.raises(Conflict, match="bytes came"):
        services.uploads.put(announced.digest, io.BytesIO(announced.raw[:3]))
    said: list[tuple[str, int, int]] = []
    view = push.upload(
        client, push.read_bundle(folder), check=True, progress=lambda *now: said.append(now)
    )
    assert view["complete"]
    of_it = [now for now in said if now[2] == len(announced.raw)]
    assert (of_it[0][1], of_it[-1][1]) == (3, len(announced.raw))


def test_what_is_wrong_is_refused_and_not_kept(services: Services, announced: Announced) -> None:
    put, size = services.uploads.put, len(announced.raw)
    with pytest.raises(Conflict, match="0 bytes are there"):
        put(announced.digest, io.BytesIO(b""), offset=1)
    with pytest.raises(Malformed, match="more than"):
        put(announced.digest, io.BytesIO(announced.raw + b"x"))
    with pytest.raises(Malformed, match="hash to"):
        put(announced.digest, io.BytesIO(os.urandom(size)))
    assert parts(services) == []
    with pytest.raises(NotFound):
        put("00" * 32, io.BytesIO(b""))
    with pytest.raises(Malformed):
        services.uploads.offset("../../etc/passwd")
    assert put(announced.digest, io.BytesIO(announced.raw)) == size


def test_a_part_that_nobody_wants_any_more_goes(services: Services, announced: Announced) -> None:
    services.room.keys.uploads.mkdir()
    old = services.room.keys.uploads / ("11" * 32)
    old.write_bytes(b"x")
    os.utime(old, (1, 1))
    services.uploads.put(announced.digest, io.BytesIO(announced.raw))
    assert parts(services) == []


def test_a_model_says_what_there_is_of_it_and_where(stage: Stage, client: Client) -> None:
    stage.devices("a", "b")
    stage.roll_out(1)
    stage.commit("a")
    stage.bundle(2)
    (found,) = client.get("/models")["models"]
    assert (found["model"], found["newest"], found["versions"], found["devices"]) == (
        *("digits", 2, 2),
        1,
    )
    new, old = client.get("/models/digits")["versions"]
    assert (old["version"], old["devices"], old["rollouts"]) == (1, 1, ["digits-1-r1"])
    assert (new["released"], new["devices"], new["rollouts"]) == (True, 0, [])
    assert new["signer"] == stage.publisher.public.id
    assert [variant["format"] for variant in new["variants"]]
    with pytest.raises(NotFound, match="no model"):
        client.get("/models/letters")


def test_a_bundle_that_is_in_use_stays(stage: Stage, client: Client) -> None:
    stage.devices("a")
    stage.roll_out(1)
    stage.commit("a")
    digest = client.get("/bundles/digits-1")["digest"]
    with pytest.raises(Conflict, match=r"released.*order of a.*a runs it"):
        client.delete(f"/bundles/{digest}")
    assert all(file["on_shelf"] for file in client.get("/bundles/digits-1")["files"])


def test_a_bundle_that_nobody_needs_goes_with_its_own_blobs_alone(
    services: Services, publisher: PrivateKey, client: Client, tmp_path: Path
) -> None:
    kept = stages.push(services, write_bundle(tmp_path / "one", publisher, version=1))
    shared = {file.sha256 for file in services.library.manifest(kept.digest).files}
    before = set(services.room.shelf.digests())
    gone = stages.push(services, write_bundle(tmp_path / "two", publisher, version=2))
    client.delete(f"/bundles/{gone.digest}")
    assert set(services.room.shelf.digests()) == before
    assert shared <= before
    with pytest.raises(NotFound):
        client.get("/bundles/digits-2")
    with pytest.raises(NotFound):
        client.delete(f"/bundles/{gone.digest}")
    with services.room.store.begin() as tx:
        assert registry.references(tx, services.publications, kept) == []
    assert stages.push(services, write_bundle(tmp_path / "again", publisher, version=2)).complete
    assert services.library.hands_out(Digest(sha256(b"")))
    assert ME.who in {row["who"] for row in client.get("/audit")["audit"]}
