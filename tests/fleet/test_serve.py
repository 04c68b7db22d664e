"""The real program: its own process, a real Mosquitto, scripted devices, and `kill -9`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.messages import Phase, render
from edgefleet_contract.reasons import Reason
from edgefleet_contract.topics import Channel, topic
from edgefleet_fleet.datadir import DataDir
from tests.contract.makers import write_bundle
from tests.fleet.conftest import Fleet, free_port, require
from tests.fleet.device import Connection, Device, Identity, enrol, model_sample, system_sample
from tests.fleet.stage import FLEET

pytestmark = pytest.mark.system


@pytest.fixture
def publisher_pem(tmp_path: Path, publisher: PrivateKey) -> Path:
    path = tmp_path / "publisher.pem"
    path.write_text(publisher.public.pem)
    return path


@pytest.fixture
def identities(fleet: Fleet, publisher_pem: Path, tmp_path: Path) -> dict[str, Identity]:
    """Devices `a` and `b`, enrolled by the command line's claim over real HTTP."""
    assert fleet.run("keys", "trust", publisher_pem).returncode == 0
    claim = fleet.run("devices", "claim", "--uses", "2").stdout.strip()
    return {name: enrol(fleet.url, claim, name, tmp_path / name) for name in ("a", "b")}


@pytest.fixture
def device(identities: dict[str, Identity]) -> Iterator[Device]:
    with Device(identities["a"], FLEET) as found:
        yield found


def until(what: Callable[[], object], timeout: float = 15) -> None:
    """Wait for an event of another process, which can only be asked about."""
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def broker_pid(fleet: Fleet) -> int:
    found = subprocess.run(
        ["pgrep", "-f", f"mosquitto -c {fleet.data}/"], capture_output=True, text=True, check=True
    )
    return int(found.stdout.split()[0])


def push(fleet: Fleet, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return fleet.run("push-model", folder, *flags)


def rollout(fleet: Fleet, number: int = 0) -> dict[str, object]:
    found = fleet.client.get("/rollouts")["rollouts"][number]
    assert isinstance(found, dict)
    return found


def online(fleet: Fleet, name: str) -> bool:
    return bool(fleet.client.get(f"/devices/{name}")["online"])


def test_a_model_travels_from_the_command_line_to_a_device_and_back(
    fleet: Fleet, device: Device, publisher: PrivateKey, tmp_path: Path
) -> None:
    done = push(fleet, write_bundle(tmp_path, publisher))
    assert (done.returncode, done.stdout) == (0, "digits-1-r1\n")
    order = device.next_order()
    for blob in (order.targets[0].bundle_sha256, order.targets[0].signature_sha256):
        assert requests.get(f"{order.sources[0]}/{blob}", timeout=5).status_code == 200
    device.tell(order, Phase.DOWNLOADING)
    device.commit(order)
    device.say(Channel.TELEMETRY_SYSTEM, system_sample("a"))
    device.say(Channel.TELEMETRY_MODEL, model_sample("a"))
    until(lambda: fleet.client.get("/devices/a")["telemetry"]["models"])
    view = fleet.client.get("/devices/a")
    assert view["online"]
    assert view["phase"] == "committed"
    assert [event["phase"] for event in view["events"]] == ["committed", "downloading"]
    assert view["rollouts"][0]["outcome"] == "good"
    assert view["models"][0]["version"] == 1


def test_watch_ends_with_the_rollout_and_its_exit_code_says_how(
    fleet: Fleet, device: Device, publisher: PrivateKey, tmp_path: Path
) -> None:
    for version, code, answer in ((1, 0, "commit"), (2, 1, "refuse")):
        folder = write_bundle(tmp_path, publisher, version=version)
        command = [sys.executable, "-m", "edgefleet_fleet", "push-model", str(folder), "--watch"]
        environment = {**os.environ, "FLEET_URL": fleet.url, "FLEET_TOKEN": fleet.token}
        process = subprocess.Popen(
            [*command, "--max-failures", "1", "--to", "id=a"],
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
    # It is told to stay with what it has.
    assert device.order_with(1).allow_downgrade


def test_a_device_that_was_off_gets_its_order_when_it_comes_back(
    fleet: Fleet, identities: dict[str, Identity], publisher: PrivateKey, tmp_path: Path
) -> None:
    push(fleet, write_bundle(tmp_path, publisher))
    with Device(identities["a"], FLEET) as device:
        device.commit(device.next_order())
        until(lambda: fleet.client.get("/rollouts/digits-1-r1")["counts"]["good"] == 1)


def test_a_device_that_vanishes_is_offline(fleet: Fleet, device: Device) -> None:
    until(lambda: online(fleet, "a"))
    device.vanish()
    until(lambda: not online(fleet, "a"))


def test_a_device_cannot_read_what_is_anothers(
    fleet: Fleet, identities: dict[str, Identity], publisher: PrivateKey, tmp_path: Path
) -> None:
    b = identities["b"]
    with (
        Connection(b.folder, "device", b.host, b.port, "b") as spy,
        Device(identities["a"], FLEET) as device,
    ):
        for where in ("#", "edgefleet/v1/#", "$SYS/#", topic(FLEET, "a", Channel.DESIRED)):
            spy.subscribe(where)  # granted, and filtered at delivery
        push(fleet, write_bundle(tmp_path, publisher))
        order = device.next_order()
        device.commit(order)
        device.say(Channel.TELEMETRY_SYSTEM, system_sample("a"))
        where, _ = spy.arrived.get(timeout=10)
        assert where == topic(FLEET, "b", Channel.DESIRED)
        # A round trip later, whatever was on the way to the spy is there.
        spy.subscribe(topic(FLEET, "b", Channel.DESIRED))
        rest = [spy.arrived.get_nowait()[0] for _ in range(spy.arrived.qsize())]
        assert set(rest) <= {topic(FLEET, "b", Channel.DESIRED)}


def test_a_device_cannot_write_what_is_anothers(
    fleet: Fleet, identities: dict[str, Identity]
) -> None:
    b = identities["b"]
    forged = [topic(FLEET, "a", channel) for channel in Channel]
    forged += [
        topic(FLEET, "b", Channel.DESIRED),
        topic("other", "b", Channel.EVENT),
        "edgefleet/v1/demo/-/trust/root",
        "anything",
    ]
    with observer_of(fleet) as observer:
        observer.subscribe("edgefleet/v1/#")
        for where in forged:
            with Connection(b.folder, "device", b.host, b.port, "b") as thief:
                thief.attempt(where, b"forged")
        with Connection(b.folder, "device", b.host, b.port, "b") as itself:
            itself.publish(topic(FLEET, "b", Channel.EVENT), b"mine")
        seen = []
        while (topic(FLEET, "b", Channel.EVENT), b"mine") not in seen:
            seen.append(observer.arrived.get(timeout=10))
    assert [where for where, payload in seen if payload == b"forged"] == []


def test_the_observer_reads_everything_and_writes_nothing(fleet: Fleet, device: Device) -> None:
    with observer_of(fleet) as writer:
        writer.attempt(topic(FLEET, "a", Channel.DESIRED), b"forged")
    with observer_of(fleet) as observer:
        observer.subscribe("edgefleet/v1/demo/+/telemetry/#")
        device.say(Channel.TELEMETRY_SYSTEM, system_sample("a"))
        assert observer.arrived.get(timeout=10)[0] == topic(FLEET, "a", Channel.TELEMETRY_SYSTEM)
    assert device.arrived.empty()


def observer_of(fleet: Fleet) -> Connection:
    return Connection(DataDir(fleet.data).keys, "observer", "127.0.0.1", fleet.mqtt_port)


def test_the_client_id_of_another_device_does_not_push_it_off(
    fleet: Fleet, identities: dict[str, Identity], device: Device
) -> None:
    b = identities["b"]
    with Connection(b.folder, "device", b.host, b.port, client_id="a") as thief:
        thief.publish(topic(FLEET, "b", Channel.EVENT), b"hello")
        device.say(Channel.TELEMETRY_SYSTEM, system_sample("a"))
        until(lambda: fleet.client.get("/devices/a")["telemetry"]["system"])
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


def test_kill_9_of_the_service_loses_nothing(
    fleet: Fleet, identities: dict[str, Identity], publisher: PrivateKey, tmp_path: Path
) -> None:
    push(fleet, write_bundle(tmp_path, publisher))
    pid = broker_pid(fleet)
    fleet.kill()
    until(lambda: not Path(f"/proc/{pid}").exists())  # the broker dies with it
    fleet.start()
    with Device(identities["a"], FLEET) as device:
        device.commit(device.next_order())
        until(lambda: rollout(fleet)["counts"]["good"] == 1)  # type: ignore[index]


def test_what_a_device_says_while_the_service_is_gone_arrives_afterwards(
    fleet: Fleet, device: Device, publisher: PrivateKey, tmp_path: Path
) -> None:
    push(fleet, write_bundle(tmp_path, publisher))
    order = device.next_order()
    pid = broker_pid(fleet)
    assert fleet.process is not None
    os.kill(fleet.process.pid, signal.SIGSTOP)  # alive, but deaf
    try:
        for _ in range(50):
            device.tell(order, Phase.DOWNLOADING)
    finally:
        os.kill(fleet.process.pid, signal.SIGCONT)
    until(lambda: len(fleet.client.get("/devices/a")["events"]) == 50)
    assert broker_pid(fleet) == pid


def test_kill_9_of_the_broker_is_mended_and_orders_are_there_again(
    fleet: Fleet, identities: dict[str, Identity], publisher: PrivateKey, tmp_path: Path
) -> None:
    push(fleet, write_bundle(tmp_path, publisher))
    pid = broker_pid(fleet)
    # Even what the broker had kept is lost: the fleet knows the level, not the broker.
    os.kill(pid, signal.SIGKILL)
    for file in (fleet.data / "broker").glob("*.db*"):
        file.unlink()
    until(lambda: requests.get(f"{fleet.url}/healthz", timeout=5).status_code == 503)
    until(lambda: requests.get(f"{fleet.url}/healthz", timeout=5).status_code == 200)
    with Device(identities["a"], FLEET) as device:
        assert device.next_order().targets[0].version == 1


def test_it_ends_cleanly_and_takes_its_broker_along(fleet: Fleet) -> None:
    pid = broker_pid(fleet)
    assert fleet.stop() == 0
    assert not Path(f"/proc/{pid}").exists()
    assert "Traceback" not in fleet.log.read_text()


def test_the_page_opens_with_the_address_that_it_prints(fleet: Fleet) -> None:
    fleet.stop()
    address = fleet.start()
    answer = requests.get(address, timeout=5)
    assert answer.status_code == 200
    assert "Devices online" in answer.text


def test_the_token_and_keys_never_stand_in_the_log(
    fleet: Fleet, identities: dict[str, Identity]
) -> None:
    log = fleet.log.read_text()
    assert fleet.token not in log
    assert "PRIVATE" not in log


def test_a_second_service_on_the_same_directory_is_refused(fleet: Fleet) -> None:
    done = serve("--data", str(fleet.data), "--listen", "127.0.0.1:0", "--mqtt-port", "0")
    assert done.returncode == 1
    assert "fleet: error: another fleet service runs" in done.stderr


@pytest.mark.parametrize("flag", ["--listen", "--mqtt-port"])
def test_a_port_that_is_taken_is_said_with_the_flag_that_helps(tmp_path: Path, flag: str) -> None:
    require("mosquitto", "mosquitto")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"--listen": "127.0.0.1:0", "--mqtt-port": str(free_port())}
        ports[flag] = f"127.0.0.1:{port}" if flag == "--listen" else str(port)
        flags = [word for pair in ports.items() for word in pair]
        done = serve("--data", str(tmp_path / "data"), *flags)
    assert done.returncode == 1
    assert f"choose another with {flag}" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_mosquitto_it_says_what_to_type(tmp_path: Path) -> None:
    program = "import edgefleet_fleet.adapters.mosquitto as m, sys\n"
    program += "m.shutil.which = lambda *_, **__: None\n"
    program += "from edgefleet_fleet.__main__ import main\nsys.exit(main())"
    flags = ["serve", "--data", str(tmp_path), "--listen", "127.0.0.1:0", "--mqtt-port", "0"]
    done = subprocess.run(
        [sys.executable, "-c", program, *flags],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "sudo apt-get install mosquitto" in done.stderr


def test_systemd_is_told_when_it_is_ready(tmp_path: Path) -> None:
    require("mosquitto", "mosquitto")
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(20)
        flags = ["--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--mqtt-port", "0"]
        process = subprocess.Popen(
            [sys.executable, "-m", "edgefleet_fleet", "serve", *flags],
            env={**os.environ, "NOTIFY_SOCKET": str(path)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert listener.recv(100) == b"READY=1"
        process.send_signal(signal.SIGINT)
        assert listener.recv(100) == b"STOPPING=1"
        assert process.wait(20) == 0


def serve(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgefleet_fleet", "serve", *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_prometheus_takes_the_metrics(fleet: Fleet, device: Device) -> None:
    device.say(Channel.TELEMETRY_SYSTEM, system_sample("a"))
    until(lambda: fleet.client.get("/devices/a")["telemetry"]["system"])
    text = requests.get(f"{fleet.url}/metrics", timeout=5).text
    assert 'edgefleet_devices{online="true"} 1' in text
    assert 'edgefleet_messages_total{channel="telemetry/system"} 1' in text
    promtool = require("promtool", "prometheus")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_devices_shout_is_dropped_and_the_rest_still_arrives(
    fleet: Fleet, device: Device
) -> None:
    device.publish(device.topic(Channel.EVENT), b"\xff\x00 not json")
    device.publish(device.topic(Channel.REPORTED), b"[" * 5000)
    other = device.topic(Channel.TELEMETRY_SYSTEM)
    device.publish(other, render(system_sample("somebody-else")))
    device.say(Channel.TELEMETRY_SYSTEM, system_sample("a"))
    until(lambda: fleet.client.get("/devices/a")["telemetry"]["system"])
    text = requests.get(f"{fleet.url}/metrics", timeout=5).text
    assert 'edgefleet_messages_dropped_total{cause="malformed"} 3' in text
