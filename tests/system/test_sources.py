"""Sources with a real control room, broker and agent: results, and predictions over the broker."""

from __future__ import annotations

import errno
import json
import os
import queue
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgefleet_agent.sources import hiding
from edgefleet_contract import messages, topics
from edgefleet_contract.results import Result
from edgefleet_contract.telemetry import SourceTelemetry
from tests.agent.bundles import make_bundle
from tests.agent.models import linear, pixels
from tests.agent.sourcing import install_plugin
from tests.fleet.device import Connection
from tests.system.site import Site, open_site

pytestmark = pytest.mark.system

INBOX = """
[[sources]]
name = "inbox"
kind = "folder"
model = "digits"
every_s = 0.1
sink = { kind = "mqtt", on = "change", retain = true, queue = 3 }
"""
ASKED = """
[[sources]]
name = "asked"
kind = "mqtt"
model = "digits"
max_bytes = 4096
per_s = 20
queue = 4
"""
FLEET = "demo"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("site")) as opened:
        yield opened


def start(site: Site, device: str, sources: str) -> Path:
    """A device with these sources, which serves version 1."""
    state = site.enrol(device)
    with (state / "agent.toml").open("a") as file:
        file.write(sources)
    site.start_agent(device)
    made = site.root / "bundles" / "digits-1"
    if not made.exists():
        make_bundle(site.root / "bundles", 1, key=site.publisher)
    site.push(made)
    site.wait(f"{device} to serve", lambda: site.version(device) == 1)
    return state


@dataclass
class Heard:
    topic: str
    payload: bytes
    told: dict[str, str]
    correlation: bytes | None
    content_type: str
    retain: bool


class Client(Connection):
    """A client of the broker with somebody's certificate, which hears properties, too."""

    def __init__(self, site: Site, stem: str) -> None:
        super().__init__(site.data / "keys", stem, "127.0.0.1", site.mqtt_port)
        self.heard: queue.Queue[Heard] = queue.Queue()
        self.client.on_message = self._hear

    def _hear(self, _client: object, _userdata: object, message: mqtt.MQTTMessage) -> None:
        properties = message.properties
        self.heard.put(
            Heard(
                message.topic,
                bytes(message.payload),
                dict(getattr(properties, "UserProperty", [])),
                getattr(properties, "CorrelationData", None),
                getattr(properties, "ContentType", ""),
                message.retain,
            )
        )

    def ask(
        self,
        body: bytes,
        *,
        device: str = "pi-1",
        slot: str = "digits",
        respond: str = "",
        correlation: bytes = b"",
        retain: bool = False,
        **told: str,
    ) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        if respond:
            properties.ResponseTopic = respond
        if correlation:
            properties.CorrelationData = correlation
        properties.UserProperty = [(name.replace("_", "-"), value) for name, value in told.items()]
        where = topics.request_topic(FLEET, device, slot)
        sent = self.client.publish(where, body, qos=1, retain=retain, properties=properties)
        sent.wait_for_publish(10)

    def next(self, timeout: float = 20) -> Heard:
        return self.heard.get(timeout=timeout)

    def next_result(self) -> Result:
        return messages.parse(Result, self.next().payload)


def question(rows: int, **more: object) -> bytes:
    data = pixels(rows).ravel().tolist()
    item = {"name": "x", "datatype": "FP32", "shape": [rows, 64], "data": data}
    return json.dumps({"inputs": [item], **more}).encode()


def drop(inbox: Path, name: str, value: Any) -> None:
    draft = inbox / f".{name}"
    draft.write_text(json.dumps(value.tolist()))
    draft.rename(inbox / name)


def test_results_reach_whoever_may_read_them_when_they_change(site: Site) -> None:
    state = start(site, "pi-1", INBOX)
    inbox = state / "inbox"
    site.wait("the inbox", (inbox / "failed").exists)
    first, second = pixels(1), np.eye(64, dtype=np.float32)[2:3] * 9
    assert linear(first).argmax() != linear(second).argmax()
    with Client(site, "requester") as reader:
        reader.subscribe(topics.results_topic(FLEET, "pi-1", "inbox"))
        for number, row in enumerate((first, first, second, second, first)):
            drop(inbox, f"{number}.json", row)
            site.wait("the answer", (inbox / "done" / f"{number}.json").exists)
        found = [reader.next_result() for _ in range(3)]
        assert reader.heard.empty()
    assert [result.cause for result in found] == ["first", "class", "class"]
    assert [result.metadata for result in found] == [{"file": f"{n}.json"} for n in (0, 2, 4)]
    assert [result.seq for result in found] == [1, 2, 3]
    (output,) = found[0].outputs
    assert np.allclose(output.data, linear(first)[0])
    assert found[0].tops == (int(linear(first).argmax()),)
    assert (found[0].device, found[0].slot, found[0].version) == ("pi-1", "digits", "1")

    with Client(site, "observer") as late:  # the last one is kept for whoever comes later
        late.subscribe(topics.results_topic(FLEET, "pi-1", "inbox"))
        kept = late.next()
        assert kept.retain
        assert messages.parse(Result, kept.payload) == found[2]

        late.subscribe(topics.topic(FLEET, "pi-1", topics.Channel.TELEMETRY_SOURCE))

        def counted() -> bool:
            sample = messages.parse(SourceTelemetry, late.next().payload)
            assert (sample.source, sample.kind, sample.slot) == ("inbox", "folder", "digits")
            counts = (sample.read, sample.predicted, sample.published)
            return (*counts, sample.dropped, sample.failed, sample.restarts) == (5, 5, 3, 0, 0, 0)

        site.wait("the counts", counted)
    told = json.loads(site.run("edge-agent", "sources", "--state", state, "--json"))
    assert told["sources"][0]["name"] == "inbox"
    assert site.get("/devices/pi-1")["online"]  # the control room minds none of it
    assert "dropped" not in site.log("fleet")
    site.stop("pi-1")


@pytest.mark.skipif(hiding.landlock_version() < 2, reason="this kernel has no Landlock")
def test_a_plugin_in_a_real_agent_cannot_read_the_devices_keys(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(site.root / "site")
    monkeypatch.setenv("PYTHONPATH", f"{site.root}/site:{os.environ.get('PYTHONPATH', '')}")
    tables = [
        f'[[sources]]\nname = "{name}"\nkind = "trouble"\ndoes = "read"\npath = "{path}"\n'
        f'model = "digits"\nsink = {{ kind = "folder", path = "said/{name}" }}\n'
        for name, path in (
            ("key", "identity/device.key"),
            ("seal", "identity/seal.key"),
            ("toml", "agent.toml"),
        )
    ]
    state = start(site, "pi-7", "\n".join(tables))
    found = {}
    for name in ("key", "seal", "toml"):
        said = site.wait(name, lambda name=name: list((state / "said" / name).glob("*.json")))
        found[name] = float(json.loads(said[0].read_text())["metadata"]["value"])
    assert found["key"] == found["seal"] == -errno.EACCES
    assert found["toml"] > 0
    site.stop("pi-7")


def test_while_the_broker_is_away_the_newest_results_wait(site: Site) -> None:
    state = start(site, "pi-2", INBOX.replace('"change"', '"every"'))
    inbox = state / "inbox"
    site.wait("the inbox", (inbox / "failed").exists)
    site.kill("fleet")
    site.wait("the loss", lambda: "disconnected from the broker" in site.log("pi-2"))
    for number in range(8):  # the models go on
        drop(inbox, f"{number}.json", pixels(1) * number)
        site.wait("the answer", (inbox / "done" / f"{number}.json").exists)
    site.start_fleet()
    with Client(site, "requester") as reader:
        reader.subscribe(topics.results_topic(FLEET, "pi-2", "inbox"))
        found: list[Result] = []
        while not found or found[-1].seq < 8:
            result = reader.next_result()
            if result not in found:  # the retained one may come twice
                found.append(result)
    assert found[-1].metadata == {"file": "7.json"}
    assert found[-1].dropped == 5  # three of eight could wait
    assert {result.seq for result in found} <= {6, 7, 8}
    site.stop("pi-2")


def test_a_requester_is_answered_over_the_broker_as_over_http(site: Site) -> None:
    start(site, "pi-3", ASKED)
    mine = topics.response_topic(FLEET, "pi-3", "digits", "line-4")
    with Client(site, "requester") as asker:
        asker.subscribe(f"{topics.PREFIX}/{FLEET}/pi-3/predict/+/response/#")

        def ask(body: bytes, **more: Any) -> Heard:
            asker.ask(body, device="pi-3", **more)
            return asker.next()

        said = ask(question(2, id="q"), respond=mine, correlation=b"\x00\x07")
        assert (said.topic, said.correlation) == (mine, b"\x00\x07")
        assert said.told == {"status": "200", "edgefleet-model-version": "1"}
        assert said.content_type == "application/json"
        value = json.loads(said.payload)
        assert value["id"] == "q"
        assert np.allclose(value["outputs"][0]["data"], linear(pixels(2)).ravel())

        raw = pixels(1).tobytes()
        head = {
            "inputs": [
                {
                    "name": "x",
                    "datatype": "FP32",
                    "shape": [1, 64],
                    "parameters": {"binary_data_size": len(raw)},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
        text = json.dumps(head).encode()
        said = ask(text + raw, inference_header_content_length=str(len(text)))
        assert said.topic == topics.response_topic(FLEET, "pi-3", "digits")
        size = int(said.told["inference-header-content-length"])
        assert np.allclose(struct.unpack("<10f", said.payload[size:]), linear(pixels(1))[0])

        for body, told, status, words in (
            (b"{", {}, "400", "JSON"),
            (question(1).replace(b"FP32", b"INT8"), {}, "400", "FP32"),
            (question(1), {"inference_header_content_length": "x"}, "400", "no number"),
            (b" " * 5000, {}, "413", "5000 bytes, at most 4096"),
        ):
            said = ask(body, **told)
            assert said.told["status"] == status, said
            assert words in json.loads(said.payload)["error"]

        for _ in range(100):
            asker.client.publish(topics.request_topic(FLEET, "pi-3", "digits"), question(1), qos=0)
        answers = [asker.next() for _ in range(100)]
        refused = [each for each in answers if each.told["status"] == "503"]
        assert {each.told["status"] for each in answers} == {"200", "503"}
        assert len(refused) > 20
        assert refused[0].told["retry-after"] == "1"
    site.stop("pi-3")


def test_a_device_answers_nowhere_else_whatever_it_is_asked(site: Site) -> None:
    start(site, "pi-4", ASKED)
    elsewhere = (
        topics.topic(FLEET, "pi-4", topics.Channel.REPORTED),
        topics.response_topic(FLEET, "pi-4", "other"),
        topics.response_topic(FLEET, "pi-1", "digits"),
        "anything",
    )
    with Client(site, "observer") as witness, Client(site, "requester") as thief:
        witness.subscribe("#")
        for where in elsewhere:
            thief.ask(question(1), device="pi-4", respond=where, correlation=b"evil")
        thief.ask(question(1), device="pi-4", slot="other")  # not asked this way
        thief.ask(question(1), device="pi-4", correlation=b"kept", retain=True)
        thief.ask(question(1), device="pi-4", correlation=b"end")
        heard = []
        while not heard or heard[-1].correlation != b"end" or "/response" not in heard[-1].topic:
            heard.append(witness.next())
        answers = [each for each in heard if "status" in each.told]
        assert [each.correlation for each in answers] == [b"kept", b"end"]
        assert {each.topic for each in answers} == {topics.response_topic(FLEET, "pi-4", "digits")}
        # A device that comes back is not asked what was asked, and kept, while it was away.
        site.kill("pi-4")
        thief.ask(question(1), device="pi-4", correlation=b"away")
        site.start_agent("pi-4")
        site.wait("pi-4", lambda: site.version("pi-4") == 1)
        site.wait("the link", lambda: site.log("pi-4").count("connected to the broker") == 2)
        thief.ask(question(1), device="pi-4", correlation=b"back")
        heard = []
        while not heard or heard[-1].correlation != b"back" or "/response" not in heard[-1].topic:
            heard.append(witness.next())
        assert [each.correlation for each in heard if "status" in each.told] == [b"back"]
        thief.publish(topics.request_topic(FLEET, "pi-4", "digits"), b"", retain=True)
    site.stop("pi-4")


def test_a_device_that_is_not_configured_to_does_not_hear_requests(site: Site) -> None:
    state = start(site, "pi-5", ASKED)
    with Client(site, "requester") as asker:
        asker.subscribe(topics.response_topic(FLEET, "pi-5", "digits"))
        asker.ask(question(1), device="pi-5")
        assert asker.next().told["status"] == "200"
        site.stop("pi-5")
        text = (state / "agent.toml").read_text()
        (state / "agent.toml").write_text(text.replace(ASKED, ""))
        site.start_agent("pi-5")  # the broker remembers its session, and what it subscribed to
        site.wait("the link", lambda: site.log("pi-5").count("connected to the broker") == 2)
        asker.subscribe(topics.topic(FLEET, "pi-5", topics.Channel.TELEMETRY_SYSTEM))
        asker.ask(question(1), device="pi-5")
        with Client(site, "observer") as witness:
            witness.subscribe(f"{topics.PREFIX}/{FLEET}/pi-5/#")
            beats = 0
            while beats < 2:  # telemetry of two more seconds, and no answer among it
                heard = witness.next()
                assert "/predict/" not in heard.topic
                beats += heard.topic.endswith("telemetry/system")
    site.stop("pi-5")


def test_the_commands_of_the_guide_ask_and_read(site: Site) -> None:
    """With the addresses of the test for those of the guide, and one message each."""
    if shutil.which("mosquitto_rr") is None:
        pytest.skip("mosquitto_rr is not installed: sudo apt-get install mosquitto-clients")
    sink = '[[sources]]\nname = "noise"\nkind = "synthetic"\nmodel = "digits"\nevery_s = 0.5\n'
    start(site, "pi-6", ASKED + sink + 'sink = { kind = "mqtt", on = "every" }\n')
    (site.root / "request.json").write_bytes(question(1))
    text = (Path(__file__).parents[2] / "docs/guides/sources.md").read_text()
    blocks = re.findall(r"```\n(mosquitto_.*?)```", text.replace("\\\n", " "), re.DOTALL)
    assert [block.split()[0] for block in blocks] == ["mosquitto_sub", "mosquitto_rr"]
    said = []
    for block in blocks:
        command = block
        for old, new in (
            ("fleet.local", "127.0.0.1"),
            ("8883", str(site.mqtt_port)),
            ("fleet-data", str(site.data)),
            ("pi-1", "pi-6"),
            ("request.json", str(site.root / "request.json")),
        ):
            command = command.replace(old, new)
        more = "-R -C 9 -W 20" if "mosquitto_sub" in block else "-W 20"  # others send as well
        done = subprocess.run(
            ["sh", "-c", f"{command.strip()} {more}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    found = dict(line.partition(" ")[::2] for line in said[0].splitlines())
    payload = found[topics.results_topic(FLEET, "pi-6", "noise")]
    assert messages.parse(Result, payload.encode()).device == "pi-6"
    assert "outputs" in said[1], said[1]
    assert np.allclose(json.loads(said[1])["outputs"][0]["data"], linear(pixels(1))[0])
    site.stop("pi-6")
