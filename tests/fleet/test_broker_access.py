"""Who may publish and read what on the broker: every pair is tried on a real one.

The broker grants any subscription and filters what it delivers, so a reader is judged by what
arrives; a refused publisher is answered or cut off, so it is judged by what a witness sees.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.topics import (
    FROM_DEVICE,
    PREDICT_REQUESTS,
    PREDICT_RESPONSES,
    RESULTS,
    TO_DEVICE,
    Channel,
    every_device,
    request_topic,
    response_topic,
    results_topic,
    topic,
    trust_topic,
)
from edgefleet_fleet.adapters.mosquitto import acl_text, configuration_text, find_program
from edgefleet_fleet.authority import Authority
from edgefleet_fleet.datadir import DataDir
from tests.fleet.device import Connection
from tests.fleet.running import free_port, require, until
from tests.fleet.stage import FLEET

pytestmark = pytest.mark.system

OWN: Final = {str(channel): topic(FLEET, "a", channel) for channel in Channel}
FOREIGN: Final = [
    *(topic(FLEET, "b", channel) for channel in Channel),
    *(topic("other", "a", channel) for channel in Channel),
    request_topic("other", "a", "digits"),
    response_topic("other", "a", "digits"),
    results_topic("other", "a", "camera"),
    "anything",
]
REQUESTS: Final = {name: request_topic(FLEET, name, "digits") for name in ("a", "b")}
ANSWERS: Final = {
    name: [
        response_topic(FLEET, name, "digits"),
        response_topic(FLEET, name, "digits", "line-4"),
        results_topic(FLEET, name, "camera"),
    ]
    for name in ("a", "b")
}
ASKING: Final = [*REQUESTS.values(), *ANSWERS["a"], *ANSWERS["b"]]
TRUST: Final = [trust_topic(FLEET, name) for name in ("timestamp", "root/1", "policy/fleet")]
EVERYTHING: Final = [*OWN.values(), *FOREIGN, *ASKING, *TRUST]
OURS: Final = [where for where in EVERYTHING if where != "anything"]
MAY_PUBLISH: Final = {
    "device": [*(OWN[channel] for channel in FROM_DEVICE), *ANSWERS["a"]],
    "observer": [],
    "requester": list(REQUESTS.values()),
    "service": OURS,
}
MAY_READ: Final = {
    "device": [*(OWN[channel] for channel in TO_DEVICE), REQUESTS["a"], *TRUST],
    "observer": OURS,
    "requester": [*ANSWERS["a"], *ANSWERS["b"], *TRUST],
    "service": OURS,
}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """The shipped configuration, running; the folder has everybody's certificates."""
    require("mosquitto", "mosquitto")
    data, port = DataDir(tmp_path_factory.mktemp("broker") / "data"), free_port()
    authority = data.prepare(FLEET, public_host="localhost")
    now = datetime.now(UTC)
    stranger = Authority.create(FLEET, now=now)
    issue(authority, data.keys, "device", now=now)
    issue(stranger, data.keys, "stranger", now=now)
    issue(authority, data.keys, "expired", now=now - timedelta(days=2))
    serial = issue(authority, data.keys, "revoked", now=now)
    revoked = authority.revocation_list([(serial, int(now.timestamp()))], now=now)
    data.revocations.write_text(revoked)
    acl, conf = data.broker / "acl", data.broker / "mosquitto.conf"
    acl.write_text(acl_text(FLEET))
    is_root = os.geteuid() == 0
    text = configuration_text(data, acl=acl, listen="127.0.0.1", port=port, is_root=is_root)
    conf.write_text(text)
    acl.chmod(0o600)
    log = data.root / "log"
    with log.open("wb") as file:
        process = subprocess.Popen([find_program(), "-c", str(conf)], stdout=file, stderr=file)
    try:
        until(lambda: is_open(port))
        yield data.keys, port
    finally:
        process.terminate()
        process.wait(10)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def issue(authority: Authority, folder: Path, stem: str, *, now: datetime) -> str:
    """A certificate for device `a`; its serial."""
    key = PrivateKey.generate_p256()
    key.save(folder / f"{stem}.key")
    issued = authority.issue_client("a", key.public, now=now, days=1)
    (folder / f"{stem}.crt").write_text(issued.pem)
    return issued.serial


def who(broker: tuple[Path, int], stem: str) -> Connection:
    return Connection(broker[0], stem, "127.0.0.1", broker[1])


@pytest.mark.parametrize("stem", MAY_PUBLISH)
def test_what_each_publishes_arrives_where_it_may_and_nowhere_else(
    broker: tuple[Path, int], stem: str
) -> None:
    witness_stem = "observer" if stem != "observer" else "service"
    mark, end = f"by {stem}".encode(), f"the end of {stem}".encode()
    with who(broker, witness_stem) as witness:
        witness.subscribe("#")
        for where in EVERYTHING:
            with who(broker, stem) as writer:
                writer.attempt(where, mark)
        seen = set()
        with who(broker, "device" if stem != "device" else "service") as ender:
            ender.attempt(OWN["event"], end)
        while (got := witness.arrived.get(timeout=10))[1] != end:
            seen.add(got[0]) if got[1] == mark else None
    assert seen == set(MAY_PUBLISH[stem])


@pytest.mark.parametrize("stem", MAY_READ)
def test_what_each_reads_is_what_it_may(broker: tuple[Path, int], stem: str) -> None:
    mark = f"for {stem}".encode()
    with who(broker, "service") as service:
        for where in OURS:
            service.publish(where, mark, retain=True)
    with who(broker, stem) as reader:
        for where in ("#", every_device(FLEET, Channel.BLOB_DATA), *EVERYTHING):
            reader.subscribe(where)
        reader.subscribe(MAY_READ[stem][-1])  # what was on the way before is there by now
        until(lambda: {where for where, _ in reader.arrived.queue} >= set(MAY_READ[stem]))
        seen = {where for where, payload in reader.arrived.queue if payload == mark}
    assert seen == set(MAY_READ[stem])


@pytest.mark.parametrize("stem", ["stranger", "expired", "revoked"])
def test_nobody_gets_in_with_a_certificate_that_is_not_good(
    broker: tuple[Path, int], stem: str
) -> None:
    client = who(broker, stem)
    try:
        client.client.connect("127.0.0.1", broker[1])
        client.client.loop_start()
        client.lost.get(timeout=10)
    except OSError:
        pass
    finally:
        client.client.loop_stop()
    assert client._connected.empty()


def test_the_specification_says_what_was_tried() -> None:
    writes = ",".join((*FROM_DEVICE, PREDICT_RESPONSES, RESULTS))
    reads = ",".join((*TO_DEVICE, PREDICT_REQUESTS))
    answers = f"{PREDICT_RESPONSES},{RESULTS}"
    page = (Path(__file__).parents[2] / "docs/spec/wire.md").read_text()
    for row in (
        f"| device | `a/{{{writes}}}` | `a/{{{reads}}}`, `-/trust/#` |",
        f"| requester | `+/{PREDICT_REQUESTS}` | `+/{{{answers}}}`, `-/trust/#` |",
    ):
        assert row in page, f"put this into docs/spec/wire.md:\n{row}"
