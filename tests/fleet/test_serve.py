"""The real program: its own process, a real Mosquitto, scripted devices; one for all tests here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.messages import render
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.topics import Channel, topic, trust_topic
from edgefleet_fleet.datadir import DataDir
from tests.contract.makers import write_bundle
from tests.fleet.device import Connection, Device, Identity, model_sample, system_sample
from tests.fleet.running import Fleet, free_port, require, until
from tests.fleet.stage import FLEET

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """`fleet serve`, running; no test here stops it."""
    require("mosquitto", "mosquitto")
    found = Fleet(tmp_path_factory.mktemp("site") / "fleet", free_port(), free_port())
    found.start()
    yield found
    found.stop()


def test_a_model_travels_from_the_command_line_to_a_device_and_back(
    fleet: Fleet, device: Device, publisher: PrivateKey, tmp_path: Path
) -> None:
    done = fleet.run(
        "push-model", write_bundle(tmp_path, publisher), "--key", fleet.key, "--to", device.meant
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("digits-1-r")
    order = device.next_order()
    for blob in (order.targets[0].bundle_sha256, order.targets[0].signature_sha256):
        assert requests.get(f"{order.sources[0]}/{blob}", timeout=5).status_code == 200
    device.tell(order, Phase.DOWNLOADING)
    device.commit(order)
    device.say(Channel.TELEMETRY_SYSTEM, system_sample(device.name))
    device.say(Channel.TELEMETRY_MODEL, model_sample(device.name))
    until(lambda: fleet.client.get(f"/devices/{device.name}")["telemetry"]["models"])
    view = fleet.client.get(f"/devices/{device.name}")
    assert view["online"]
    assert view["phase"] == "committed"
    told = [(event["kind"], event["what"]) for event in view["events"]]
    assert told == [
        *(("install", "committed"), ("install", "downloading")),
        *(("link", "online"), ("enrolment", "enrolled")),
    ]
    assert view["rollouts"][0]["outcome"] == "good"
    assert view["models"][0]["version"] == 1


def test_watch_ends_with_the_rollout_and_its_exit_code_says_how(
    fleet: Fleet, device: Device, publisher: PrivateKey, tmp_path: Path
) -> None:
    for version, code, answer in ((1, 0, "commit"), (2, 1, "refuse")):
        folder = write_bundle(tmp_path, publisher, version=version)
        key = str(fleet.key)
        command = [sys.executable, "-m", "edgefleet_fleet", "push-model", str(folder), "--watch"]
        command += ["--key", key]
        environment = {**os.environ, "FLEET_URL": fleet.url, "FLEET_TOKEN": fleet.token}
        process = subprocess.Popen(
            [*command, "--max-failures", "1", "--to", device.meant],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        order = device.order_with(version)
        if answer == "commit":
            device.commit(order)
        else:
            device.refuse(order, Reason.GOLDEN_MISMATCH)
        _, talk = process.communicate(timeout=30)
        assert process.returncode == code, talk
        assert ("golden_mismatch" in talk) == (answer == "refuse")
        assert (f"fleet rollouts resume digits-{version}-r" in talk) == (answer == "refuse")
    # It is told to stay with what it has.
    assert device.order_with(1).allow_downgrade


def test_a_rollout_soaks_by_the_clock_and_a_revert_sends_the_device_back(
    fleet: Fleet, device: Device, publisher: PrivateKey, tmp_path: Path
) -> None:
    flags = ["--key", str(fleet.key), "--to", device.meant, "--pace", "60/min", "--soak", "1s"]
    folder = write_bundle(tmp_path, publisher)
    dry = fleet.run("push-model", folder, *flags, "--dry-run", "--json")
    assert [visit["device"] for visit in json.loads(dry.stdout)] == [device.name], dry.stderr
    for version in (1, 2):
        folder = write_bundle(tmp_path / str(version), publisher, version=version)
        rollout = fleet.run("push-model", folder, *flags, "--gate", "silence=1h").stdout.strip()
        device.commit(device.order_with(version))
        ended = fleet.run("rollouts", "watch", rollout)
        assert ended.returncode == 0, ended.stderr
    assert fleet.run("rollouts", "promote", rollout).returncode == 1
    assert fleet.run("rollouts", "revert", rollout).stdout == f"{rollout}: aborting\n"
    order = device.order_with(1)
    assert order.allow_downgrade
    device.commit(order)
    until(lambda: fleet.client.get(f"/rollouts/{rollout}")["state"] == "aborted")


def test_watch_says_that_a_person_is_waited_for(
    fleet: Fleet, device: Device, publisher: PrivateKey, tmp_path: Path
) -> None:
    flags = ["--key", str(fleet.key), "--to", device.meant, "--approve-by", "any", "--watch"]
    done = fleet.run("push-model", write_bundle(tmp_path, publisher), *flags, "--json")
    assert done.returncode == 5, done.stderr
    rollout = json.loads(done.stdout)["id"]
    assert fleet.run("rollouts", "approve", rollout).returncode == 3  # who asks does not approve
    assert fleet.run("rollouts", "deny", rollout).stdout == f"{rollout}: denied\n"


def test_a_device_that_was_off_gets_its_order_when_it_comes_back(
    fleet: Fleet, identities: dict[str, Identity], publisher: PrivateKey, tmp_path: Path
) -> None:
    meant = f"id={identities['a'].name}"
    rollout = fleet.push(write_bundle(tmp_path, publisher), to=meant)
    with Device(identities["a"], FLEET) as device:
        device.commit(device.next_order())
        until(lambda: fleet.client.get(f"/rollouts/{rollout}")["counts"]["good"] == 1)


def test_a_device_that_vanishes_is_offline(fleet: Fleet, device: Device) -> None:
    until(lambda: fleet.is_online(device.name))
    device.vanish()
    until(lambda: not fleet.is_online(device.name))


def test_a_device_cannot_read_what_is_anothers(
    fleet: Fleet, identities: dict[str, Identity], publisher: PrivateKey, tmp_path: Path
) -> None:
    a, b = identities["a"], identities["b"]
    with (
        Connection(b.folder, "device", b.host, b.port, b.name) as spy,
        Device(identities["a"], FLEET) as device,
    ):
        for where in ("#", "edgefleet/v1/#", "$SYS/#", topic(FLEET, a.name, Channel.DESIRED)):
            spy.subscribe(where)  # granted, and filtered at delivery
        fleet.push(write_bundle(tmp_path, publisher), to=f"id={a.name}|{b.name}")
        order = device.next_order()
        device.commit(order)
        device.say(Channel.TELEMETRY_SYSTEM, system_sample(device.name))
        mine = topic(FLEET, b.name, Channel.DESIRED)
        everybodys = trust_topic(FLEET, "")  # what the publishers say
        seen = [spy.arrived.get(timeout=10)[0]]
        while seen[-1] != mine:
            seen.append(spy.arrived.get(timeout=10)[0])
        # A round trip later, whatever was on the way to the spy is there.
        spy.subscribe(topic(FLEET, b.name, Channel.DESIRED))
        seen += [spy.arrived.get_nowait()[0] for _ in range(spy.arrived.qsize())]
        assert {where for where in seen if not where.startswith(everybodys)} == {mine}


def test_a_device_cannot_write_what_is_anothers(
    fleet: Fleet, identities: dict[str, Identity]
) -> None:
    a, b = identities["a"], identities["b"]
    forged = [topic(FLEET, a.name, channel) for channel in Channel]
    forged += [
        topic(FLEET, b.name, Channel.DESIRED),
        topic("other", "b", Channel.EVENT),
        "edgefleet/v1/demo/-/trust/root/1",
        "edgefleet/v1/demo/-/trust/timestamp",
        "edgefleet/v1/demo/-/trust/time",
        "anything",
    ]
    with observer_of(fleet) as observer:
        observer.subscribe("edgefleet/v1/#")
        for where in forged:
            with Connection(b.folder, "device", b.host, b.port, b.name) as thief:
                thief.attempt(where, b"forged")
        with Connection(b.folder, "device", b.host, b.port, b.name) as itself:
            itself.publish(topic(FLEET, b.name, Channel.EVENT), b"mine")
        seen = []
        while (topic(FLEET, b.name, Channel.EVENT), b"mine") not in seen:
            seen.append(observer.arrived.get(timeout=10))
    assert [where for where, payload in seen if payload == b"forged"] == []


def test_the_observer_reads_everything_and_writes_nothing(fleet: Fleet, device: Device) -> None:
    with observer_of(fleet) as writer:
        writer.attempt(device.topic(Channel.DESIRED), b"forged")
    with observer_of(fleet) as observer:
        observer.subscribe("edgefleet/v1/demo/+/telemetry/#")
        device.say(Channel.TELEMETRY_SYSTEM, system_sample(device.name))
        assert observer.arrived.get(timeout=10)[0] == device.topic(Channel.TELEMETRY_SYSTEM)
    assert device.arrived.empty()


def observer_of(fleet: Fleet) -> Connection:
    return Connection(DataDir(fleet.data).keys, "observer", "127.0.0.1", fleet.mqtt_port)


def test_the_client_id_of_another_device_does_not_push_it_off(
    fleet: Fleet, identities: dict[str, Identity], device: Device
) -> None:
    b = identities["b"]
    with Connection(b.folder, "device", b.host, b.port, client_id=device.name) as thief:
        thief.publish(topic(FLEET, b.name, Channel.EVENT), b"hello")
        device.say(Channel.TELEMETRY_SYSTEM, system_sample(device.name))
        until(lambda: fleet.client.get(f"/devices/{device.name}")["telemetry"]["system"])
        assert device.lost.empty()


def test_without_a_certificate_nobody_gets_in(fleet: Fleet) -> None:
    ca = DataDir(fleet.data).keys / "ca.pem"
    command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(fleet.mqtt_port), "--cafile", str(ca)]
    require("mosquitto_pub", "mosquitto-clients")
    done = subprocess.run(
        [*command, "-t", "x", "-m", "y", "-V", "mqttv5"],
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert done.returncode != 0


def test_the_token_and_keys_never_stand_in_the_log(
    fleet: Fleet, identities: dict[str, Identity]
) -> None:
    log = fleet.log.read_text()
    assert fleet.token not in log
    assert "PRIVATE" not in log


def test_prometheus_takes_the_metrics(fleet: Fleet, device: Device) -> None:
    device.say(Channel.TELEMETRY_SYSTEM, system_sample(device.name))
    until(lambda: fleet.client.get(f"/devices/{device.name}")["telemetry"]["system"])
    text = requests.get(f"{fleet.url}/metrics", timeout=5).text
    assert 'edgefleet_devices{online="true"} 1' in text
    assert 'edgefleet_messages_total{channel="telemetry/system"} ' in text
    promtool = require("promtool", "prometheus")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_devices_shout_is_dropped_and_the_rest_still_arrives(
    fleet: Fleet, device: Device
) -> None:
    before = dropped(fleet)
    device.publish(device.topic(Channel.EVENT), b"\xff\x00 not json")
    device.publish(device.topic(Channel.REPORTED), b"[" * 5000)
    other = device.topic(Channel.TELEMETRY_SYSTEM)
    device.publish(other, render(system_sample("somebody-else")))
    device.say(Channel.TELEMETRY_SYSTEM, system_sample(device.name))
    until(lambda: fleet.client.get(f"/devices/{device.name}")["telemetry"]["system"])
    assert dropped(fleet) == before + 3


def dropped(fleet: Fleet) -> int:
    text = requests.get(f"{fleet.url}/metrics", timeout=5).text
    found = re.search(r'dropped_total\{cause="malformed"\} (\d+)', text)
    return int(found[1]) if found else 0
