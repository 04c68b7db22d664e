"""The real program, killed, stopped, started again and kept from starting."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.phases import Phase
from tests.contract.makers import write_bundle
from tests.fleet.device import Device, Identity
from tests.fleet.running import Fleet, free_port, require, until
from tests.fleet.stage import FLEET

pytestmark = pytest.mark.system


def test_kill_9_of_the_service_loses_nothing(
    fleet: Fleet, identities: dict[str, Identity], publisher: PrivateKey, tmp_path: Path
) -> None:
    fleet.push(write_bundle(tmp_path, publisher))
    pid = fleet.broker_pid()
    fleet.kill()
    until(lambda: not Path(f"/proc/{pid}").exists())  # the broker dies with it
    fleet.start()
    with Device(identities["a"], FLEET) as device:
        device.commit(device.next_order())
        until(lambda: fleet.client.get("/rollouts/digits-1-r1")["counts"]["good"] == 1)


def test_what_a_device_says_while_the_service_is_gone_arrives_afterwards(
    fleet: Fleet, device: Device, publisher: PrivateKey, tmp_path: Path
) -> None:
    fleet.push(write_bundle(tmp_path, publisher))
    order = device.next_order()
    pid = fleet.broker_pid()
    assert fleet.process is not None
    os.kill(fleet.process.pid, signal.SIGSTOP)  # alive, but deaf
    try:
        for _ in range(50):
            device.tell(order, Phase.DOWNLOADING)
    finally:
        os.kill(fleet.process.pid, signal.SIGCONT)
    path = f"/devices/{device.name}/events?kind=install&limit=1000"
    until(lambda: len(fleet.client.get(path)["events"]) == 50)
    assert fleet.broker_pid() == pid


def test_kill_9_of_the_broker_is_mended_and_orders_are_there_again(
    fleet: Fleet, identities: dict[str, Identity], publisher: PrivateKey, tmp_path: Path
) -> None:
    fleet.push(write_bundle(tmp_path, publisher))
    pid = fleet.broker_pid()
    # Even what the broker had kept is lost: the fleet knows the level, not the broker.
    os.kill(pid, signal.SIGKILL)
    for file in (fleet.data / "broker").glob("*.db*"):
        file.unlink()
    until(lambda: fleet.health() == 503)
    until(lambda: fleet.health() == 200)
    with Device(identities["a"], FLEET) as device:
        assert device.next_order().targets[0].version == 1


def test_it_ends_cleanly_and_takes_its_broker_along(fleet: Fleet) -> None:
    pid = fleet.broker_pid()
    assert fleet.stop() == 0
    assert not Path(f"/proc/{pid}").exists()
    assert "Traceback" not in fleet.log.read_text()


def test_the_page_opens_with_the_address_that_it_prints(fleet: Fleet) -> None:
    fleet.stop()
    address = fleet.start()
    answer = requests.get(address, timeout=5)
    assert answer.status_code == 200
    assert "Devices online" in answer.text


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
