"""A model that keeps dying after its probation: the version before it serves, and stays."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgefleet_agent.install_commands import Restore, Serve, Settle
from edgefleet_agent.install_events import KeptDying, RolledBack
from edgefleet_agent.ports import ModelSpec
from edgefleet_agent.runtime.crash_loop import DEATHS, WINDOW_S, Deaths
from edgefleet_contract import bundle as b
from edgefleet_contract.model_signature import sign_bundle
from edgefleet_contract.order_policy import Policy
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.board import Board
from tests.agent.bundles import PUBLISHER, make_bundle
from tests.agent.hosting import running, until
from tests.agent.models import WEIGHTS, golden_path, model_path, pixels
from tests.agent.playbook import chosen, committed, happy, play, target
from tests.agent.shelf import serve
from tests.agent.test_runtime_crash import LOWEST, divide_spec, traps
from tests.contract.makers import order_of, target_of

GUILTY = KeptDying("digits", target(2).bundle_sha256, "killed by SIGFPE")


# --- when: values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moments", "is_loop"),
    [
        ([0] * (DEATHS - 1), False),
        ([0] * DEATHS, True),
        ([index * WINDOW_S / DEATHS for index in range(DEATHS)], True),
        ([index * WINDOW_S / (DEATHS - 1) for index in range(DEATHS * 4)], False),
    ],
)
def test_so_many_deaths_within_a_window_are_a_loop(moments: list[float], is_loop: bool) -> None:
    deaths = Deaths()
    for moment in moments:
        deaths = deaths.died(moment)
    assert deaths.is_loop is is_loop


def test_starts_that_fail_count_however_long_each_takes() -> None:
    """A model that hangs in its load takes `ready_s` each time."""
    slow = fast = Deaths().died(0)
    for number in range(1, DEATHS):
        slow, fast = slow.did_not_start(number * 3600), fast.did_not_start(number)
    assert not slow.is_loop
    assert fast.is_loop
    assert slow.did_not_start(DEATHS * 3600).is_loop
    assert not slow.died(DEATHS * 3600).is_loop  # it had served in between


# --- what then: the machine ----------------------------------------------------------------------


def test_what_keeps_dying_gives_way_for_good_and_the_fleet_hears_why() -> None:
    device, _ = play(committed(1), *happy(order_of(target(2), seq=2), chosen(2)))
    device, commands = play(device, GUILTY)
    assert device.slots == {"digits": chosen(1)}
    assert (device.phase, device.install and device.install.reason) == (
        Phase.ROLLED_BACK,
        Reason.CRASH_LOOP,
    )
    assert device.quarantined == (GUILTY.bundle,)
    assert commands == [Serve((chosen(1),)), Settle(())]
    assert play(device, GUILTY) == (device, [])  # a late word about it changes nothing


def test_where_there_is_nothing_to_go_back_to_it_stays_and_is_not_condemned() -> None:
    device = committed(2)
    assert play(device, GUILTY) == (device, [])


def test_two_that_keep_dying_do_not_take_turns_for_ever() -> None:
    device, _ = play(committed(1), *happy(order_of(target(2), seq=2), chosen(2)))
    device, _ = play(device, GUILTY, KeptDying("digits", target(1).bundle_sha256))
    assert device.slots == {"digits": chosen(1)}
    assert device.quarantined == (GUILTY.bundle,)


def test_an_order_at_hand_that_asks_for_it_again_ends() -> None:
    device, _ = play(committed(1), *happy(order_of(target(2), seq=2), chosen(2)))
    both = order_of(target(2), target(3, "other"), seq=3)
    device, _ = play(device, *happy(both, chosen(3, "other"))[:5])
    assert device.phase is Phase.SELFTEST
    device, commands = play(device, GUILTY)
    assert device.phase is Phase.FAILED
    assert device.slots == {"digits": chosen(1)}
    assert device.quarantined == (GUILTY.bundle,)  # and not what was on its way beside it
    assert commands == [Serve((chosen(1),)), Settle(())]


def test_an_order_for_a_newer_one_goes_on() -> None:
    device, _ = play(committed(1), *happy(order_of(target(2), seq=2), chosen(2)))
    new = happy(order_of(target(3), seq=3), chosen(3))
    device, _ = play(device, *new[:5], GUILTY)
    assert device.phase is Phase.SELFTEST
    device, _ = play(device, *new[5:])
    assert (device.phase, device.slots) == (Phase.COMMITTED, {"digits": chosen(3)})


def test_a_swap_is_brought_to_its_end_and_goes_back_to_what_does_not_die() -> None:
    """The candidate is on probation while news of the old one's deaths come in."""
    device, _ = play(committed(1), *happy(order_of(target(2), seq=2), chosen(2)))
    other = order_of(target(2), target(3, "other"), seq=3)
    device, _ = play(device, *happy(other, chosen(3, "other"))[:7], GUILTY)
    assert device.phase is Phase.PROBATION
    device, _ = play(device, happy(other)[-1])
    assert device.slots == {"digits": chosen(1), "other": chosen(3, "other")}


def test_what_keeps_dying_in_one_slot_is_not_committed_in_another() -> None:
    device, _ = play(committed(1), *happy(order_of(target(2), seq=2), chosen(2)))
    both = order_of(target(2), target(2, "other"), seq=3)
    for steps, phase in ((6, Phase.ACTIVATING), (7, Phase.PROBATION)):
        swapping, _ = play(device, *happy(both, chosen(2, "other"))[:steps])
        assert swapping.phase is phase
        back, commands = play(swapping, GUILTY)
        assert (back.phase, back.slots) == (Phase.ROLLING_BACK, {"digits": chosen(1)})
        assert isinstance(commands[0], Serve)
        assert commands[1:] == [Restore((), ("other",))]
        back, _ = play(back, RolledBack())
        assert (back.phase, back.slots) == (Phase.ROLLED_BACK, {"digits": chosen(1)})
        assert back.quarantined == (GUILTY.bundle,)


def test_on_probation_it_is_the_probation_that_judges() -> None:
    device, _ = play(committed(1), *happy(order_of(target(2), seq=2), chosen(2))[:7])
    same, commands = play(device, GUILTY)
    assert (same, commands) == (device, [])
    assert all(not isinstance(command, Restore) for command in commands)


# --- a real model --------------------------------------------------------------------------------


def publish(root: Path, spec: ModelSpec) -> Path:
    """A publisher's bundle of a model that lies somewhere."""
    folder, variant = root / f"digits-{spec.version}", spec.variant
    for path, file in ((variant.model, model_path(spec)), (variant.golden, golden_path(spec))):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / path)
    roles = {variant.golden: b.Role.GOLDEN, variant.model: b.Role.MODEL}
    files = tuple(b.describe_file(folder, path, roles[path]) for path in sorted(roles))
    manifest = b.Manifest("digits", spec.version, 1, "0.1.0", (variant,), files)
    document = b.render_manifest(manifest)
    (folder / b.MANIFEST).write_bytes(document)
    (folder / b.SIGNATURE).write_bytes(sign_bundle(document, PUBLISHER))
    return folder


@traps
def test_a_model_that_dies_of_what_it_is_asked_gives_way_to_the_one_before(tmp_path: Path) -> None:
    """Its golden vectors are divisions that go well; its clients ask for another."""

    async def story() -> None:
        with serve() as shelf:
            good = make_bundle(tmp_path, 1)
            spec = replace(divide_spec(tmp_path / "made", (7, 2)), version=2)
            bad = publish(tmp_path, spec)
            shelf.put_bundle(good)
            shelf.put_bundle(bad)
            source, quick = (shelf.url,), Policy(probation_s=0)
            board = Board(tmp_path / "pi")
            async with board:
                for seq, which in enumerate((good, bad), 1):
                    order = order_of(target_of(which), seq=seq, sources=source, policy=quick)
                    assert await board.install(order) is Phase.COMMITTED
                asking = asyncio.create_task(asyncio.to_thread(kill_it, board))
                await board.until(Phase.ROLLED_BACK)
                await asking
                (told,) = [step for step in board.heard.steps if step[1] is Reason.CRASH_LOOP]
                assert told[0] is Phase.ROLLED_BACK
                assert "digits@2 kept dying: killed by SIGFPE" in told[2]
                assert serves_the_first(board)
                assert [model.version for model in board.installer.running] == [1]
            async with board:  # another life
                assert serves_the_first(board)
                assert [model.version for model in board.installer.running] == [1]
                order = order_of(target_of(bad), seq=3, sources=source, policy=quick)
                assert await board.install(order) is Phase.REJECTED
                assert board.heard.steps[-1][1] is Reason.QUARANTINED
                assert serves_the_first(board)

    asyncio.run(story())


def kill_it(board: Board) -> None:
    """Ask what kills it, as a client does that does not know better, until it is another model."""
    until(lambda: board.ask({"instances": [[LOWEST, -1]]})[0] in (400, 404), timeout=60)


def serves_the_first(board: Board) -> bool:
    return np.allclose(board.answer()[1], pixels(1) @ WEIGHTS + 1)


@traps
def test_it_is_told_once_and_what_cannot_be_replaced_is_started_again(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    with running() as here:
        here.host.on_crash_loop(lambda spec, words: told.append((spec.slot, words)))
        here.do(here.host.activate((divide_spec(tmp_path, (7, 2)),)))
        for _ in range(4):
            here.predict("divide", {"instances": [[LOWEST, -1]]})
        until(lambda: here.stats("divide").restarts == 8 and here.stats("divide").ready)
        assert here.predict("divide", {"instances": [[9, 3]]}).json() == {"predictions": [[3]]}
    assert [slot for slot, _ in told] == ["divide"]
    assert "SIGFPE" in told[0][1]


def test_a_model_whose_file_is_gone_when_it_is_to_come_back_is_a_loop_too(tmp_path: Path) -> None:
    told: list[str] = []
    with running() as here:
        here.host.on_crash_loop(lambda _, words: told.append(words))
        spec = divide_spec(tmp_path, (7, 2))
        here.do(here.host.activate((spec,)))
        model_path(spec).unlink()
        os.kill(here.host.worker_pids["divide"], signal.SIGKILL)
        until(lambda: bool(told))
    assert "No such file" in told[0]
