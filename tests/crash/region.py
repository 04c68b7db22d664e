"""What is around the devices of the kill matrix: five releases, orders for them, what is said.

Versions 1 and 2 are what a standing device committed, in that order; 3 is what the order at hand
brings; 4 is a newer order's; 5 is what every device gets in the end, to see that it still can.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edgefleet_agent.adapters.tuf_client import FolderMetadata, MetadataSource
from edgefleet_contract import messages
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.order_policy import Canary, Conditions, Policy, Shadow, Window
from tests.agent.repository import Repository
from tests.agent.shelf import Shelf
from tests.contract.makers import order_of, target_of, write_bundle
from tests.crash.board import Site

OLD, BASE, NEW, NEWER, LAST = range(1, 6)
ASKED: Final = Policy(
    probation_s=0,
    windows=(Window("00:00", 7 * 24 * 60),),
    conditions=Conditions(mains=True),
    shadow=Shadow(seconds=1),
    canary=Canary(seconds=1),
)
"""With all that makes an order pass every phase."""
ELSEWHERE: Final = replace(ASKED, windows=(Window("00:00", 60, "Nowhere/Town"),))
"""What no board can do: it is refused."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An order by its number, what it brings, and how."""

    seq: int
    version: int
    policy: Policy = ASKED


ORDERS: Final = {
    "old": Asked(1, OLD, Policy(probation_s=0)),
    "base": Asked(2, BASE, Policy(probation_s=0)),
    "order": Asked(3, NEW),
    "impossible": Asked(3, NEW, ELSEWHERE),
    "second": Asked(4, NEWER),
    "newer": Asked(5, NEWER),
    "last": Asked(9, LAST, Policy(probation_s=0)),
}
RELEASED, NEW_TAKEN_BACK, BASE_TAKEN_BACK = "released", "new taken back", "base taken back"


@dataclass(frozen=True, slots=True)
class Region(Site):
    """A site with named orders, and with what the publishers may say."""

    named: dict[str, bytes]
    sources: dict[str, MetadataSource]


def make_region(shelf: Shelf, folder: Path) -> Region:
    """Everything is published; nothing is installed."""
    director, publisher = PrivateKey.generate_ed25519(), PrivateKey.generate_p256()
    repository = Repository(director, publisher)
    targets = {}
    for version in (OLD, BASE, NEW, NEWER, LAST):
        content = random.Random(version).randbytes(70_000)  # two chunks
        made = write_bundle(folder, publisher, version=version, content=content)
        shelf.put_bundle(made)
        targets[version] = target_of(made)
    repository.release(*targets.values())
    sources: dict[str, MetadataSource] = {RELEASED: _said(repository, folder / RELEASED)}
    for name, version in ((NEW_TAKEN_BACK, NEW), (BASE_TAKEN_BACK, BASE)):
        repository.revoke(digests=(targets[version].bundle_sha256,))
        sources[name] = _said(repository, folder / name)
    named = {
        name: messages.seal_order(
            order_of(
                targets[asked.version], seq=asked.seq, sources=(shelf.url,), policy=asked.policy
            ),
            director,
        )
        for name, asked in ORDERS.items()
    }
    return Region(
        sources[RELEASED], repository.root, repository.now.timestamp(), (), named, sources
    )


def _said(repository: Repository, folder: Path) -> FolderMetadata:
    for name, raw in repository.documents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    return FolderMetadata(folder)
