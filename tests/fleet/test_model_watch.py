"""Windows that devices count, as evidence for the gates of a rollout."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgefleet_agent.ports import ShadowReport
from edgefleet_agent.runtime.comparison import Tally, compare
from edgefleet_agent.shadowing import shadow_measurements
from edgefleet_contract.bundle import sha256
from edgefleet_contract.drift import Counted, Window
from edgefleet_contract.drift_reference import Distribution, Kind, Reference, render_reference
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.messages import render
from edgefleet_contract.phases import Phase
from edgefleet_contract.topics import Channel
from edgefleet_fleet import drift_watch, plan_words
from edgefleet_fleet.happenings import Happening, HistoryKind
from edgefleet_fleet.wishes import Wish
from tests.agent.hosting import Load, running
from tests.agent.models import linear_spec, pixels, rival_spec
from tests.contract.makers import write_bundle
from tests.fleet.device import Device, Identity, event_of, model_sample
from tests.fleet.running import Fleet, until
from tests.fleet.stage import FLEET, ME, Stage, push, release, wish_of

BUILT = Reference(
    examples=1000,
    least=5,
    inputs=(Distribution("x", Kind.NUMBER, (500, 500), edges=(0.0,)),),
    outputs=(
        Distribution("y", Kind.CLASS, (600, 300, 100), classes=(0, 1)),
        Distribution("y", Kind.TOP, (100, 400, 500), edges=(0.5, 0.9)),
    ),
)
DRIFT = render_reference(BUILT)
USUAL = (240, 120, 40)
OTHER = (40, 80, 280)
NAMES = ("a", "b", "c")


def window(
    classes: tuple[int, ...], *, numbers: tuple[int, int] = (200, 200), of: bytes = DRIFT
) -> Window:
    top = Counted((40, 160, 200))
    return Window(sha256(of), sum(classes), (Counted(numbers), Counted(classes), top))


def tell(stage: Stage, name: str, found: Window, *, version: int = 1, ts: int = 1) -> None:
    sample = replace(model_sample(name, ts=ts), version=version, drift=found)
    stage.take(name, Channel.TELEMETRY_MODEL, render(sample))


def begin(stage: Stage, *gates: str, version: int = 1, drift: bytes = DRIFT) -> str:
    """A rollout to three canaries, then to one more device."""
    root = stage.folder / f"built{version}"
    folder = write_bundle(root, stage.publisher, version=version, drift=drift)
    found = push(stage.services, folder)
    release(stage.services, stage.publisher, folder)
    words = {key: value for key, value in plan_words.gates(gates).items() if key != "envelope"}
    wish = wish_of(Wish(found.digest, found.signature_sha256), canaries=list(NAMES), **words)
    return stage.services.deployments.create(wish, actor=ME)


def all_run(stage: Stage) -> None:
    for name in NAMES:
        stage.commit(name)


def test_canaries_whose_answers_drifted_stop_it_by_name(stage: Stage) -> None:
    stage.devices(*NAMES, "d")
    rollout = begin(stage, "drift=5%")
    all_run(stage)
    for name in NAMES:
        tell(stage, name, window(OTHER))
    view = stage.view(rollout)
    assert (view["state"], view["cause"]) == ("paused", "gate")
    assert view["why"].startswith("drift on rpi5: 1 where 0.05 is the limit, seen in 3")
    with stage.services.room.store.begin() as tx:
        (alarm,) = tx.history.page("a", limit=9, kinds=(HistoryKind.DRIFT,))
    assert alarm.told == Happening("drifted", f"outputs of digits@1 in digits, {rollout}")
    assert stage.desired("d") == []


def test_canaries_that_answer_as_usual_let_it_go_on(stage: Stage) -> None:
    stage.devices(*NAMES, "d")
    rollout = begin(stage, "drift=5%,psi=25%,confidence=10%")
    all_run(stage)
    assert stage.desired("d") == []  # a gate that was asked for waits for its sample
    for name in NAMES:
        tell(stage, name, window(USUAL))
    assert stage.view(rollout)["wave"] == 1
    assert stage.desired("d") == [("digits", 1)]


@pytest.mark.parametrize(("gate", "word"), [("psi=25%", "psi"), ("js=10%", "js")])
def test_all_answers_together_are_held_against_the_bundle(
    stage: Stage, gate: str, word: str
) -> None:
    stage.devices(*NAMES, "d")
    rollout = begin(stage, gate, "drift=99%")
    all_run(stage)
    for name in NAMES:
        tell(stage, name, window(OTHER))
    assert stage.view(rollout)["why"].startswith(f"{word} on rpi5: ")
    assert stage.view(rollout)["plan"]["reference"]["outputs"] == [600, 300, 100]


def test_what_clients_send_is_no_fault_of_the_model(stage: Stage) -> None:
    stage.devices(*NAMES, "d")
    begin(stage, "drift=5%")
    all_run(stage)
    for name in NAMES:
        tell(stage, name, window(USUAL, numbers=(0, 400)))
    assert stage.desired("d") == [("digits", 1)]


def test_a_site_that_was_as_unusual_before_says_nothing_against_the_new_model(stage: Stage) -> None:
    stage.devices(*NAMES, "d")
    begin(stage)
    for name in (*NAMES, "d"):
        stage.commit(name)
    for name in NAMES:
        tell(stage, name, window(OTHER))
    second = begin(stage, "drift=5%", version=2)
    all_run(stage)
    for name in NAMES:
        tell(stage, name, window(OTHER), version=2, ts=2)
    assert stage.view(second)["why"] == ""
    assert stage.desired("d") == [("digits", 2)]


def test_windows_add_up_and_one_that_comes_twice_counts_once(stage: Stage) -> None:
    stage.devices(*NAMES, "d")
    rollout = begin(stage, "psi=25%")
    all_run(stage)
    for ts in (1, 1, 2):
        tell(stage, "a", window((24, 12, 4)), ts=ts)
    tell(stage, "a", window((9, 9, 9), of=b"another"), ts=3)
    assert stage.view(rollout)["evidence"]["rpi5"]["outputs"] == [48, 24, 8]


def test_a_reference_that_cannot_be_read_stops_no_rollout(stage: Stage) -> None:
    stage.devices(*NAMES, "d")
    rollout = begin(stage, drift=b"{}")
    all_run(stage)
    tell(stage, "a", window(OTHER, of=b"{}"))
    stage.commit("d")
    assert stage.state(rollout) == "completed"


def test_agreement_counts_what_could_be_judged(stage: Stage) -> None:
    stage.devices("a", "b")
    rollout = stage.roll_out(1, soak_s=600)
    order = stage.order("a")
    assert order is not None
    figures = {"shadow_requests": 90.0, "shadow_judged": 60.0, "shadow_agreement": 0.5}
    event = replace(event_of("a", order, Phase.SHADOW, seq=1), measurements=figures)
    stage.take("a", Channel.EVENT, render(event))
    found = stage.view(rollout)["evidence"]["rpi5"]
    assert (found["compared"], found["agreed"]) == (60, 30)


def compare_in_shadow(folder: Path) -> ShadowReport:
    """What a real candidate says that answers the opposite, beside a real model that serves."""
    rows = json.dumps({"instances": pixels(2).tolist()}).encode()
    with running() as here:
        here.do(here.host.activate((linear_spec(folder, 1),)))
        with Load(here, "/v1/models/digits:predict", rows, clients=1):
            shadow = here.host.shadow(
                rival_spec(folder, "opposite.onnx"),
                seconds=1,
                share=1.0,
                min_requests=1,
                max_cpu_share=1.0,
            )
            found = here.do(shadow)
    assert isinstance(found, ShadowReport)
    return found


def test_what_a_real_shadow_counted_is_the_denominator_of_the_gate(stage: Stage) -> None:
    report = compare_in_shadow(stage.folder)
    stage.devices("a", "b")
    rollout = stage.roll_out(1, model_gates=[{"kind": "agreement", "limit": 0.9}])
    shadowed(stage, "a", shadow_measurements(report))
    found = stage.view(rollout)["evidence"]["rpi5"]
    assert report.judged > 0
    assert (found["compared"], found["agreed"]) == (min(500, report.judged), 0)


def test_what_cannot_be_judged_says_nothing_and_an_error_disagrees(stage: Stage) -> None:
    tally = Tally()
    scores, number = np.eye(3, dtype=np.float32), np.ones((3, 1), np.float32)
    for served in (scores, scores, number, number, number):
        tally.count(compare({"y": served}, {"y": served}), serving_us=1, candidate_us=1)
    tally.count(None, serving_us=1, candidate_us=1)
    stage.devices("a", "b")
    rollout = stage.roll_out(1, soak_s=600)
    shadowed(stage, "a", shadow_measurements(tally.report(0.0)))
    found = stage.view(rollout)["evidence"]["rpi5"]
    assert (found["compared"], found["agreed"]) == (3, 2)
    only_numbers = Tally()
    only_numbers.count(compare({"y": number}, {"y": number}), serving_us=1, candidate_us=1)
    shadowed(stage, "b", shadow_measurements(only_numbers.report(0.0)))
    assert stage.view(rollout)["evidence"]["rpi5"] == found


def shadowed(stage: Stage, name: str, figures: dict[str, float]) -> None:
    order = stage.order(name)
    assert order is not None
    event = replace(event_of(name, order, Phase.SHADOW, seq=1), measurements=figures)
    stage.take(name, Channel.EVENT, render(event))


def test_variants_that_count_in_other_bins_do_not_add_up() -> None:
    number = Distribution("z", Kind.NUMBER, (400, 600), edges=(0.5,))
    pixels = Distribution("z", Kind.NUMBER, (40_000, 60_000), edges=(0.5,))
    other = replace(BUILT, outputs=(pixels, number))
    assert drift_watch.answers(BUILT) == 1
    assert drift_watch.answers(other) == 2  # the numbers of one picture are no independent draws
    assert drift_watch.answers(replace(BUILT, outputs=(pixels,))) is None
    assert drift_watch.same_answers(BUILT, BUILT)
    assert not drift_watch.same_answers(BUILT, other)
    assert drift_watch.usual(BUILT).confidence[5:19] == (100, *(0,) * 8, 400, *(0,) * 4)


@pytest.mark.system
def test_a_watched_push_ends_when_real_canaries_report_drift(
    fleet: Fleet, identities: dict[str, Identity], publisher: PrivateKey, tmp_path: Path
) -> None:
    folder = write_bundle(tmp_path, publisher, drift=DRIFT)
    with Device(identities["a"], FLEET) as a, Device(identities["b"], FLEET) as b:
        canaries = [word for device in (a, b) for word in ("--canary", device.name)]
        gates = ("--gate", "drift=1%:2", "--soak", "10m")
        done = fleet.run("push-model", folder, "--key", fleet.key, *canaries, *gates)
        assert done.returncode == 0, done.stderr
        for device in (a, b):
            device.commit(device.next_order())
            device.say(
                Channel.TELEMETRY_MODEL, replace(model_sample(device.name), drift=window(OTHER))
            )
        rollout = done.stdout.strip()
        until(lambda: fleet.client.get(f"/rollouts/{rollout}")["state"] == "paused")
        watched = fleet.run("rollouts", "watch", rollout)
    assert watched.returncode == 1
    assert "drift on rpi5: 1 where 0.01 is the limit, seen in 2" in watched.stderr
