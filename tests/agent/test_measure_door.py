"""The network's door for measuring, on a real host: who may, what is refused, what gives way."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from edgefleet_agent.adapters.board_facts import board, moment
from edgefleet_agent.measure_door import GOOD_FOR_S, MeasureDoor
from edgefleet_agent.runtime.engines import available
from edgefleet_agent.runtime.measuring import Ability
from edgefleet_agent.serving.config import MeasureConfig, ServingConfig
from edgefleet_agent.serving.token_file import changing
from edgefleet_agent.serving.tokens import make_token
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_contract.measuring import parse_invitation, parse_report
from edgefleet_contract.reasons import Reason
from tests.agent.hosting import Answered, until
from tests.agent.measuring import PUBLISHER, job_of, specs, tar_of
from tests.agent.models import asked_spec, linear_spec, pixels
from tests.agent.network import Network, bearer, on_network

PATH = "/edgefleet/measure"


@dataclass
class Measured:
    """A host that measures, and a token for it. `later` is what its clock is ahead."""

    here: Network
    secret: str
    later: float = 0.0

    def ask(self, method: str, body: bytes | None = None) -> Answered:
        return self.here.ask(method, PATH, body, bearer(self.secret))

    def challenge(self) -> str:
        return parse_invitation(self.ask("GET").body, what="invitation").challenge

    def left(self) -> list[str]:
        """What lies in the host's folder of measuring."""
        return [path.name for path in self.here.host.folder.iterdir() if "measure" in path.name]


@contextmanager
def measuring(folder: Path, **config: object) -> Iterator[Measured]:
    most = MeasureConfig(enabled=True, **config)  # type: ignore[arg-type]  # as the test has it
    with on_network(folder, measure=most) as here:
        token, secret = make_token("fixture", now=0, measures=True)
        with changing(here.lan.tokens_file) as held:
            held[0] = held[0].add(token)
        found = Measured(here, secret)
        engines = available()

        async def open_door() -> None:
            facts = board(engines, threads=1)
            door = MeasureDoor(
                most,
                here.host,
                device="cam-1",
                ability=Ability(engines, facts.hw),
                facts=facts,
                moment=moment,
                publishers=lambda: KeyRing([PUBLISHER.public]),
                clock=lambda: here.loop.time() + found.later,
            )
            here.host.on_measure(door.hear)

        here.do(open_door())
        yield found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    with measuring(tmp_path_factory.mktemp("device"), max_mib=1) as found:
        yield found


@pytest.fixture
def job(tmp_path: Path) -> bytes:
    """A good job that holds no challenge of anybody's."""
    return tar_of(*job_of({"good": linear_spec(tmp_path)}), PUBLISHER)


def test_a_signed_job_with_the_challenge_is_measured_and_what_fails_is_told(
    site: Measured, tmp_path: Path
) -> None:
    invited = parse_invitation(site.ask("GET").body, what="invitation")
    assert (invited.device, invited.max_mib) == ("cam-1", 1)
    job, places = job_of(specs(tmp_path), challenge=invited.challenge, memory_mib=600)
    raw = tar_of(job, places, PUBLISHER)
    answer = site.ask("POST", raw)
    assert answer.status == 200, answer.body
    report = parse_report(answer.body, what="report")
    found = {one.name: one for one in report.results}
    assert found["crash"].reason is Reason.TRIAL_CRASHED
    assert found["good"].figures is not None
    assert found["tflite"].figures is not None
    assert report.board == invited.board
    assert site.left() == []
    again = site.ask("POST", raw)  # whoever saw it on the network sends it once more
    assert again.status == 403
    assert "challenge" in again.json()["error"]


def test_a_job_that_no_trusted_publisher_signed_is_refused(site: Measured, tmp_path: Path) -> None:
    good = {"good": linear_spec(tmp_path)}
    job, places = job_of(good, challenge=site.challenge())
    for raw, why in (
        (tar_of(job, places, PrivateKey.generate_p256()), "unknown key"),
        (tar_of(job, places), "not signed"),
    ):
        answer = site.ask("POST", raw)
        assert answer.status == 403
        assert why in answer.json()["error"]
    assert site.ask("POST", tar_of(job, places, PUBLISHER)).status == 200
    assert site.left() == []


def test_a_job_without_a_challenge_of_this_agent_or_after_its_time_is_refused(
    site: Measured, job: bytes, tmp_path: Path
) -> None:
    assert site.ask("POST", job).status == 403
    good = {"good": linear_spec(tmp_path, slot="late")}
    late = tar_of(*job_of(good, challenge=site.challenge()), PUBLISHER)
    site.later += GOOD_FOR_S + 1
    assert site.ask("POST", late).status == 403


def test_a_file_that_is_not_the_one_that_was_signed_is_refused(
    site: Measured, tmp_path: Path
) -> None:
    spec = linear_spec(tmp_path)
    job, places = job_of({"good": spec}, challenge=site.challenge())
    digest = spec.files[spec.variant.model].sha256
    places[digest] = tmp_path / "other"
    places[digest].write_bytes(b"another model of the same name")
    answer = site.ask("POST", tar_of(job, places, PUBLISHER))
    assert answer.status == 400
    assert "is another one" in answer.json()["error"]
    assert site.left() == []


def test_a_job_that_is_too_large_is_refused(site: Measured) -> None:
    answer = site.ask("POST", b"x" * (2 * 1024 * 1024))
    assert answer.status == 413
    assert site.left() == []


def test_who_may_predict_may_not_measure_and_the_other_way_round(
    site: Measured, job: bytes, tmp_path: Path
) -> None:
    here = site.here
    assert here.do(here.host.activate((linear_spec(tmp_path),))) is None
    predict = "/v1/models/digits:predict"
    body = {"instances": pixels(1).tolist()}
    client = bearer(here.token("client"))
    assert here.ask("POST", predict, body, client).status == 200
    for method, raw in (("GET", None), ("POST", job)):
        assert here.ask(method, PATH, raw, client).status == 403
        assert here.ask(method, PATH, raw).status == 401
        local = http.client.HTTPConnection("127.0.0.1", here.local_port, timeout=60)
        assert here.ask(method, PATH, raw, connection=local).status == 403
        local.close()
    mine = bearer(site.secret)
    assert here.ask("POST", predict, body, mine).status == 403
    assert "digits" not in here.ask("GET", "/metrics", headers=mine).body.decode()
    here.do(here.host.deactivate("digits"))


@contextmanager
def hanging(site: Measured, folder: Path) -> Iterator[list[Answered]]:
    """A job that does not end by itself, sent beside; what it is answered comes into the list."""
    spec = asked_spec(folder, "busy.onnx", 10_000_000)
    job, places = job_of({"hang": spec}, challenge=site.challenge(), timeout_s=300)
    answers: list[Answered] = []
    raw = tar_of(job, places, PUBLISHER)
    client = threading.Thread(target=lambda: answers.append(site.ask("POST", raw)))
    client.start()
    until(lambda: any(name.startswith("measure-") for name in site.left()))
    until(lambda: site.here.host.is_measuring)
    yield answers
    client.join(60)
    assert not client.is_alive()


def test_one_job_at_a_time_and_an_install_goes_first(
    site: Measured, job: bytes, tmp_path: Path
) -> None:
    here = site.here
    with hanging(site, tmp_path) as answers:
        busy = site.ask("POST", job)
        assert busy.status == 503
        assert "retry-after" in busy.headers
        outcome = here.do(here.host.trial(linear_spec(tmp_path), timeout_s=30))
        assert not hasattr(outcome, "reason"), outcome
    assert answers[0].status == 503
    assert "an install began" in answers[0].json()["error"]
    assert site.left() == []


def test_a_client_that_hangs_up_ends_its_job(site: Measured, tmp_path: Path) -> None:
    spec = asked_spec(tmp_path, "busy.onnx", 10_000_000)
    job, places = job_of({"hang": spec}, challenge=site.challenge(), timeout_s=300)
    connection = site.here.connect()
    connection.request("POST", PATH, tar_of(job, places, PUBLISHER), bearer(site.secret))
    until(lambda: site.here.host.is_measuring)
    connection.close()
    until(lambda: not site.here.host.is_measuring and site.left() == [])


def test_what_serves_goes_on_while_candidates_are_measured(site: Measured, tmp_path: Path) -> None:
    here = site.here
    assert here.do(here.host.activate((linear_spec(tmp_path),))) is None
    client = bearer(here.token("while"))
    with hanging(site, tmp_path):
        for _ in range(20):
            body = {"instances": pixels(1).tolist()}
            assert here.ask("POST", "/v1/models/digits:predict", body, client).status == 200
        here.do(here.host.deactivate("digits"))
        here.do(here.host.activate((linear_spec(tmp_path, 2),)))
    here.do(here.host.deactivate("digits"))


def test_a_front_that_dies_ends_the_job(site: Measured, tmp_path: Path) -> None:
    spec = asked_spec(tmp_path, "busy.onnx", 10_000_000)
    job, places = job_of({"hang": spec}, challenge=site.challenge(), timeout_s=300)
    connection = site.here.connect()
    connection.request("POST", PATH, tar_of(job, places, PUBLISHER), bearer(site.secret))
    until(lambda: site.here.host.is_measuring)
    pid = site.here.host.front_pid
    psutil.Process(pid).kill()
    until(lambda: not site.here.host.is_measuring and site.left() == [])
    until(lambda: site.here.host.front_pid not in (None, pid))
    connection.close()
    assert site.ask("GET").status == 200


def test_what_a_dead_front_had_taken_by_half_is_in_nobodys_way(
    site: Measured, tmp_path: Path
) -> None:
    connection = site.here.connect()
    connection.putrequest("POST", PATH)
    for name, value in {"Content-Length": "100000", **bearer(site.secret)}.items():
        connection.putheader(name, value)
    connection.endheaders(b"half of it")
    until(lambda: any(name.endswith(".tar") for name in site.left()))
    pid = site.here.host.front_pid
    psutil.Process(pid).kill()
    until(lambda: site.here.host.front_pid not in (None, pid))
    connection.close()
    assert site.left() == []
    job, places = job_of({"good": linear_spec(tmp_path)}, challenge=site.challenge())
    answer = site.ask("POST", tar_of(job, places, PUBLISHER))
    assert answer.status == 200, answer.body
    assert site.left() == []


def test_it_is_off_unless_it_is_switched_on(tmp_path: Path) -> None:
    assert not ServingConfig().measure.enabled
    with on_network(tmp_path) as here:
        token, secret = make_token("fixture", now=0, measures=True)
        with changing(here.lan.tokens_file) as held:
            held[0] = held[0].add(token)
        for method in ("GET", "POST"):
            answer = here.ask(method, PATH, b"x" if method == "POST" else None, bearer(secret))
            assert answer.status == 403
            assert json.loads(answer.body)["error"] == "measuring is switched off here"


def test_it_needs_a_door_that_takes_tokens() -> None:
    with pytest.raises(OperatorError, match="takes no tokens"):
        ServingConfig(measure=MeasureConfig(enabled=True))
