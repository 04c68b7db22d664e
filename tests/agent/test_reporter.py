"""What the fleet is told again when the link comes up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from edgefleet_agent.adapters.host_metrics import capabilities
from edgefleet_agent.reporter import RECENT, FleetReporter
from edgefleet_contract.messages import parse
from edgefleet_contract.phases import Phase
from edgefleet_contract.reported import Event
from edgefleet_contract.topics import Channel
from tests.agent.board import Board


@dataclass
class Line:
    """What was sent, in order."""

    sent: list[tuple[Channel, bytes]] = field(default_factory=list)

    def publish(self, channel: Channel, payload: bytes, *, retain: bool = False) -> None:
        assert retain == (channel is Channel.REPORTED)
        self.sent.append((channel, payload))


def test_a_new_link_hears_the_newest_events_again_and_then_the_state(tmp_path: Path) -> None:
    async def story() -> None:
        async with Board(tmp_path / "pi") as board:
            line = Line()
            reporter = FleetReporter(
                device="pi-1", boot_id="boot", capabilities=capabilities({}, "arm64")
            )
            reporter.attach(board.installer, line)
            reporter.greet()
            assert [channel for channel, _ in line.sent] == [Channel.REPORTED]
            for step in range(RECENT + 3):
                reporter.step(None, Phase.DOWNLOADING, None, str(step), {})
            told = [payload for channel, payload in line.sent if channel is Channel.EVENT]
            line.sent.clear()
            reporter.greet()
            *events, (last, _) = line.sent
            assert [payload for _, payload in events] == told[-RECENT:]  # byte by byte
            assert [parse(Event, raw).seq for _, raw in events] == list(range(4, RECENT + 4))
            assert last is Channel.REPORTED

    asyncio.run(story())
