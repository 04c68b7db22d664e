"""What the door of measuring hears, in every order: of two fronts, of a job and an invitation.

The front and the host are played, so that the steps come in the order that the test says.
"""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import pytest

from edgefleet_agent.adapters.board_facts import board, moment
from edgefleet_agent.measure_door import MeasureDoor
from edgefleet_agent.runtime.measuring import Ability
from edgefleet_agent.runtime.precedence import GaveWay, Precedence
from edgefleet_agent.runtime.process import finish
from edgefleet_agent.serving.config import MeasureConfig
from edgefleet_agent.serving.measuring import ANSWERED
from edgefleet_contract.errors import Unverified
from edgefleet_contract.keys import KeyRing
from edgefleet_contract.measuring import MeasureJob, Result, parse_invitation, sign_job
from edgefleet_contract.measuring_archive import SIGNED
from tests.agent.measuring import PUBLISHER, job_of, tar_of
from tests.agent.models import linear_spec


class Stage:
    """A door, and what it says to the front. A job ends when the test says, however it is ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[dict[str, object]] = []
        self.measured: asyncio.Queue[MeasureJob] = asyncio.Queue()
        self.may_end = asyncio.Event()
        self.door = MeasureDoor(
            MeasureConfig(enabled=True),
            self,
            device="cam-1",
            ability=Ability({}, "pi-5"),
            facts=board({}, threads=1),
            moment=moment,
            publishers=lambda: KeyRing([PUBLISHER.public]),
            clock=lambda: 1000.0,
        )

    async def measure(self, job: MeasureJob, *_: object, **__: object) -> tuple[Result, ...]:
        self.measured.put_nowait(job)
        await finish(self.may_end.wait())
        return ()

    def tell_front(self, message: dict[str, object]) -> None:
        self.said.append(message)

    def challenge(self) -> str:
        self.door.hear({"measure": "ask", "number": 9})
        told = self.said.pop()
        assert told[ANSWERED] == 9
        return parse_invitation(str(told["body"]).encode(), what="invitation").challenge

    def begin(self, number: int, path: Path) -> Path:
        """A job of a front, under a number."""
        job, places = job_of({"good": linear_spec(self.folder)}, challenge=self.challenge())
        path.write_bytes(tar_of(job, places, PUBLISHER))
        self.door.hear({"measure": "run", "number": number, "path": str(path)})
        return path


def test_a_front_that_counts_anew_is_answered_nothing_of_the_one_before(tmp_path: Path) -> None:
    async def story() -> None:
        stage = Stage(tmp_path)
        first = stage.begin(1, tmp_path / "measure-7-1.tar")
        await stage.measured.get()
        stage.door.hear(None)
        second = stage.begin(1, tmp_path / "measure-8-1.tar")
        await stage.measured.get()
        jobs = stage.door._leaving | set(stage.door._running.values())
        stage.door.hear({"measure": "stop", "number": 1})
        stage.may_end.set()
        await asyncio.wait(jobs)
        assert (first.exists(), second.exists()) == (False, False)
        assert [message[ANSWERED] for message in stage.said] == [1]

    asyncio.run(story())


def test_what_had_come_by_half_goes_with_its_front(tmp_path: Path) -> None:
    async def story() -> None:
        half = tmp_path / "measure-7-2.tar"
        half.write_bytes(b"half")
        Stage(tmp_path).door.hear(None)
        assert not half.exists()

    asyncio.run(story())


def test_nothing_begins_behind_a_door_that_is_closed(tmp_path: Path) -> None:
    async def story() -> None:
        stage = Stage(tmp_path)
        challenged = stage.challenge()
        await stage.door.close()
        stage.door.hear({"measure": "run", "number": 2, "path": str(tmp_path / "measure-7-2.tar")})
        assert len(asyncio.all_tasks()) == 1, challenged

    asyncio.run(story())


def test_a_challenge_that_was_used_while_another_was_made_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job is admitted in a thread of its own; here in the middle of an invitation."""

    async def story() -> None:
        stage = Stage(tmp_path)
        job, _ = job_of({"good": linear_spec(tmp_path)}, challenge=stage.challenge())
        raw, make = sign_job(job, PUBLISHER), secrets.token_hex

        def meanwhile(size: int) -> str:
            stage.door._admit(SIGNED, raw)
            return make(size)

        with monkeypatch.context() as patched:
            patched.setattr(secrets, "token_hex", meanwhile)
            stage.challenge()
        with pytest.raises(Unverified, match="was used"):
            stage.door._admit(SIGNED, raw)

    asyncio.run(story())


def test_who_is_cancelled_while_an_install_begins_is_cancelled() -> None:
    async def story() -> tuple[bool, BaseException | None]:
        precedence = Precedence()
        for_ever = asyncio.Event()
        given_up = asyncio.create_task(precedence.last(for_ever.wait))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        async def install() -> None:
            async with precedence.first():
                pass

        installing = asyncio.create_task(install())
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up, installing])
        broken_off = asyncio.create_task(precedence.last(for_ever.wait))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await install()
        await asyncio.wait([broken_off])
        return given_up.cancelled(), broken_off.exception()

    is_cancelled, error = asyncio.run(story())
    assert is_cancelled
    assert isinstance(error, GaveWay)
