"""The shell of commands: durable before it acts, once, answered, whatever ends it in between."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from edgefleet_agent.adapters.command_file import FILE, CommandFile
from edgefleet_agent.adapters.fs import FileSystem
from edgefleet_agent.adapters.host_metrics import capabilities, read_cpu
from edgefleet_agent.adapters.log_tail import MASK, LogTail, masked
from edgefleet_agent.commander import Commander, Done, fit_lines
from edgefleet_agent.config import load
from edgefleet_agent.keeper import TrustKeeper
from edgefleet_contract.commands import (
    MAX_ANSWER_BYTES,
    MAX_COMMAND_BYTES,
    Command,
    Kind,
    Outcome,
    seal_command,
)
from edgefleet_contract.errors import OperatorError, TransientError
from edgefleet_contract.keys import KeyRing, PrivateKey

KEY = PrivateKey.generate_ed25519()
NOW = int(time.time())


class Keeper:
    """Knows one director."""

    def __init__(self, *keys: PrivateKey) -> None:
        self.directors, self.now = KeyRing([key.public for key in keys]), NOW
        self.asked = 0

    async def refresh(self) -> None:
        self.asked += 1
        raise TransientError("nobody answers")


class Wire:
    """Keeps what is sent; the broker takes it when `is_up`."""

    def __init__(self, *, is_up: bool = True) -> None:
        self.sent: list[dict[str, Any]] = []
        self.is_up = is_up
        self.got = asyncio.Event()

    def send(self, raw: bytes) -> Wire:
        self.sent.append(json.loads(raw))
        self.got.set()
        return self

    def is_published(self) -> bool:
        return self.is_up


class Acts:
    """Does what the test says, and counts."""

    def __init__(self, act: Callable[[Command], Awaitable[Done]] | None = None) -> None:
        self.done: list[str] = []
        self.began = asyncio.Event()
        self._act = act

    async def perform(self, command: Command) -> Done:
        self.done.append(command.id)
        self.began.set()
        return await self._act(command) if self._act else (Outcome.DONE, "", {"n": 1})


def command(seq: int, kind: Kind = Kind.PING, **more: Any) -> bytes:
    found = Command("demo", "pi-1", f"c{seq}", seq, NOW, NOW + 60, kind, **more)
    return seal_command(found, KEY)


def commander(
    folder: Path,
    acts: Acts,
    wire: Wire,
    *,
    keeper: Keeper | None = None,
    fs: FileSystem | None = None,
    allow: tuple[Kind, ...] = tuple(Kind),
) -> Commander:
    return Commander(
        fleet="demo",
        device="pi-1",
        boot_id="boot",
        allow=allow,
        keeper=cast("TrustKeeper", keeper or Keeper(KEY)),
        file=CommandFile(folder, fs),
        acts=acts,
        send=wire.send,
    )


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not what():  # noqa: ASYNC110 - of another task, which can only be asked about
            await asyncio.sleep(0.005)


async def running(made: Commander, what: Callable[[], object], *raws: bytes) -> None:
    """Run it until something holds, then end it as kill -9 does: with nothing said."""
    task = asyncio.create_task(made.run())
    for raw in raws:
        made.arrived(raw)
    try:
        await until(lambda: what() or task.done())
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def is_told(folder: Path, count: int = 1) -> bool:
    return (folder / FILE).exists() and (folder / FILE).read_text().count('"told":true') == count


def test_a_command_is_done_answered_and_not_heard_again(tmp_path: Path) -> None:
    async def story() -> None:
        acts, wire = Acts(), Wire()
        made = commander(tmp_path, acts, wire)
        await running(made, lambda: is_told(tmp_path), command(1), command(1))
        assert (acts.done, [told["outcome"] for told in wire.sent]) == (["c1"], ["done"])
        again = commander(tmp_path, acts, wire)  # after a restart it still is not
        await running(again, lambda: is_told(tmp_path, 2), command(1), command(2))
        assert acts.done == ["c1", "c2"]
        assert [told["id"] for told in wire.sent] == ["c1", "c2"]

    asyncio.run(story())


def test_an_end_between_a_command_and_its_answer_is_answered_and_nothing_is_done_twice(
    tmp_path: Path,
) -> None:
    async def never(_: Command) -> Done:
        await asyncio.Event().wait()
        raise AssertionError

    async def story() -> None:
        acts = Acts(never)
        raw = command(1, Kind.RESTART_WORKER, slot="digits")
        await running(commander(tmp_path, acts, Wire()), acts.began.is_set, raw)
        wire, later = Wire(), Acts()
        await running(commander(tmp_path, later, wire), lambda: is_told(tmp_path), raw)
        assert (acts.done, later.done) == (["c1"], [])
        (told,) = wire.sent
        assert (told["id"], told["outcome"]) == ("c1", "interrupted")

    asyncio.run(story())


def test_an_answer_that_the_broker_did_not_get_is_sent_after_a_restart(tmp_path: Path) -> None:
    async def story() -> None:
        acts, away = Acts(), Wire(is_up=False)
        await running(commander(tmp_path, acts, away), away.got.is_set, command(1))
        wire, later = Wire(), Acts()
        await running(commander(tmp_path, later, wire), lambda: is_told(tmp_path))
        assert wire.sent == away.sent
        assert later.done == []
        assert '"n":1' not in (tmp_path / FILE).read_text()  # what was told is kept no longer

    asyncio.run(story())


def test_what_nobody_signed_or_is_too_large_or_not_allowed_is_not_done(tmp_path: Path) -> None:
    async def story() -> None:
        acts, wire, keeper = Acts(), Wire(), Keeper(PrivateKey.generate_ed25519())
        made = commander(tmp_path, acts, wire, keeper=keeper)
        await running(made, lambda: keeper.asked, b"{}", b"x" * (MAX_COMMAND_BYTES + 1), command(1))
        assert (acts.done, wire.sent) == ([], [])
        assert not (tmp_path / FILE).exists()
        made = commander(tmp_path, acts, wire, allow=(Kind.SNAPSHOT,))
        await running(made, lambda: is_told(tmp_path), command(1))
        assert acts.done == []
        assert wire.sent[0]["outcome"] == "refused"

    asyncio.run(story())


def test_what_cannot_be_remembered_is_not_done(tmp_path: Path) -> None:
    class Full(FileSystem):
        def write(self, file: Any, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    async def story() -> None:
        acts, wire = Acts(), Wire()
        await running(commander(tmp_path, acts, wire, fs=Full()), wire.got.is_set, command(1))
        assert acts.done == []
        assert wire.sent[0]["outcome"] == "refused"
        assert "No space left" in wire.sent[0]["detail"]

    asyncio.run(story())


def test_a_log_of_commands_that_was_spoilt_takes_none_from_before(tmp_path: Path) -> None:
    async def story() -> None:
        acts, wire = Acts(), Wire()
        await running(commander(tmp_path, acts, wire), lambda: is_told(tmp_path), command(1))
        raw = (tmp_path / FILE).read_bytes()
        (tmp_path / FILE).write_bytes(raw.replace(b'"seq":1', b'"seq":9'))
        keeper = Keeper(KEY)
        keeper.now += 1
        made = commander(tmp_path, acts, wire, keeper=keeper)
        late = seal_command(Command("demo", "pi-1", "new", 5, NOW + 1, NOW + 9, Kind.PING), KEY)
        await running(made, lambda: "new" in acts.done, command(1), command(2), late)
        assert acts.done == ["c1", "new"]

    asyncio.run(story())


def test_a_command_that_fails_or_says_too_much_is_answered_as_failed(tmp_path: Path) -> None:
    async def wrong(found: Command) -> Done:
        if found.seq == 1:
            raise ZeroDivisionError
        return Outcome.DONE, "", {"lines": ["x" * MAX_ANSWER_BYTES]}

    async def story() -> None:
        wire = Wire()
        made = commander(tmp_path, Acts(wrong), wire)
        await running(made, lambda: is_told(tmp_path, 2), command(1), command(2))
        assert [told["outcome"] for told in wire.sent] == ["failed", "failed"]
        details = {told["id"]: told["detail"] for told in wire.sent}
        assert "ZeroDivisionError" in details["c1"]
        assert "are sent" in details["c2"]

    asyncio.run(story())


def test_a_ping_does_not_wait_for_a_self_test(tmp_path: Path) -> None:
    async def slow(found: Command) -> Done:
        if found.kind is Kind.SELF_TEST:
            await asyncio.Event().wait()
        return Outcome.DONE, "", {}

    async def story() -> None:
        wire = Wire()
        made = commander(tmp_path, Acts(slow), wire)
        await running(made, lambda: is_told(tmp_path), command(1, Kind.SELF_TEST), command(2))
        assert [told["id"] for told in wire.sent] == ["c2"]

    asyncio.run(story())


def test_the_newest_lines_that_fit_are_sent() -> None:
    lines = [f"{n} " + "ä" * 400 for n in range(1000)]
    kept = fit_lines(lines)
    assert kept == lines[-len(kept) :]
    assert 0 < len(json.dumps(kept)) < MAX_ANSWER_BYTES
    assert fit_lines(["x" * 100_000]) == []


@pytest.mark.parametrize(
    "text",
    [
        "claim efc1.demo.SECRET.0123",
        "token edgetok_SECRET",
        "Authorization: Bearer SECRET",
        "fetching https://me:SECRET@cache/x",
        "password = SECRET",
        "api_key: SECRET",
        '{"token": "SECRET"}',
        "-----BEGIN EC PRIVATE KEY-----\nSECRET\n-----END EC PRIVATE KEY-----",
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str) -> None:
    assert "SECRET" not in masked(text)
    assert MASK in masked(text)


def test_the_tail_has_the_newest_lines_bounded_and_without_control_characters() -> None:
    tail = LogTail()
    logger = logging.Logger("edgefleet.test")
    logger.addHandler(tail)
    for number in range(1100):
        logger.info("line %d", number)
    logger.warning("long %s", "x" * 10_000)
    try:
        raise ValueError("token=SECRET")
    except ValueError:
        logger.exception("it failed")
    lines = tail.newest(1000)
    assert len(lines) == 1000
    assert "line 1099" in lines[-3]
    assert len(lines[-2]) < 600
    assert "SECRET" not in lines[-1]
    assert "ValueError" in lines[-1]


def test_the_owner_chooses_what_is_done(tmp_path: Path) -> None:
    assert set(load(None, tmp_path).commands.allow) == set(Kind) - {Kind.LOGS, Kind.PREDICT}
    (tmp_path / "agent.toml").write_text('[commands]\nallow = ["ping", "logs"]\n')
    assert load(None, tmp_path).commands.allow == (Kind.PING, Kind.LOGS)
    (tmp_path / "agent.toml").write_text('[commands]\nallow = ["reboot"]\n')
    with pytest.raises(OperatorError, match="reboot"):
        load(None, tmp_path)


@pytest.mark.parametrize(
    ("text", "cpu", "features"),
    [
        (
            "Features : fp asimd evtstrm asimddp\nCPU implementer : 0x41\nCPU part : 0xd0b\n",
            "Cortex-A76",
            ("asimd", "asimddp"),
        ),
        ("CPU implementer : 0x99\nCPU part : 0x1\n", "ARM 0x99 0x1", ()),
        (
            "model name : Some CPU\nflags : fpu avx2 avx512_vnni\n",
            "Some CPU",
            ("avx2", "avx512_vnni"),
        ),
        ("", "", ()),
    ],
)
def test_the_processor_is_read_as_the_kernel_tells_it(
    tmp_path: Path, text: str, cpu: str, features: tuple[str, ...]
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert read_cpu(tmp_path / "cpuinfo") == (cpu, features)
    assert read_cpu(tmp_path / "none") == ("", ())


def test_a_board_says_what_it_is(tmp_path: Path) -> None:
    found = capabilities({"litert": "2"}, "arm64", state=tmp_path, accelerators=("cpu",))
    assert found.disk_bytes > 0
    assert found.kernel
    assert found.hardware_class
    assert found.accelerators == ("cpu",)
