"""Boards that ask to come in, as processes, and an operator who decides at the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet_contract.keys import PrivateKey
from tests.system.site import Site, open_site

pytestmark = pytest.mark.system


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path) as opened:
        yield opened


def claim(site: Site, *options: str | Path) -> Path:
    path = site.root / "claim.txt"
    path.write_text(site.fleet("devices", "claim", *options))
    return path


def enrolment(site: Site, device: str, *options: str | Path) -> tuple[str | Path, ...]:
    return (
        *("edge-agent", "enrol", "--state", site.root / device, "--fleet", site.url),
        *("--claim-file", site.root / "claim.txt", "--device", device, *options),
    )


def begin(site: Site, device: str) -> str:
    """Start `edge-agent enrol`; the key id that it prints while it waits."""
    before = len(site.log(device)) if (site.root / f"{device}.log").exists() else 0
    site.start(device, *enrolment(site, device))
    found = site.wait(
        "the key id", lambda: re.search(r"key id: ([0-9a-f]{64})\n", site.log(device)[before:])
    )
    return found[1]


def end(site: Site, device: str) -> int:
    return site.processes.pop(device).wait(60)


def certificates(site: Site, device: str) -> list[str]:
    """What enrolment left on a board, beside its key."""
    return sorted(
        path.name for path in (site.root / device / "identity").iterdir() if path.suffix != ".key"
    )


def test_a_board_waits_through_kill_9_of_both_sides_and_comes_in_when_it_is_approved(
    site: Site,
) -> None:
    claim(site, "--approve")
    key_id = begin(site, "pi-1")
    assert f"fleet devices approve pi-1 --key-id {key_id[:16]}" in site.log("pi-1")
    (shown,) = json.loads(site.fleet("devices", "requests", "--json"))
    assert (shown["device"], shown["key_id"], shown["state"]) == ("pi-1", key_id, "waiting")
    assert key_id[:16] in site.fleet("devices", "requests")

    # the board loses its power, and asks again with the same key: it is the same request
    site.kill("pi-1")
    said = site.run(*enrolment(site, "pi-1", "--no-wait"), ok=(4,))
    assert key_id in said
    assert "then run this again" in said
    assert begin(site, "pi-1") == key_id

    # so does the control room
    site.kill("fleet")
    site.wait("the board to notice", lambda: "still waiting" in site.log("pi-1"))
    site.start_fleet()

    stranger = PrivateKey.generate_p256().public.id
    refused = site.fleet("devices", "approve", "pi-1", "--key-id", stranger[:16], ok=(1,))
    assert "fleet devices deny pi-1" in refused
    assert certificates(site, "pi-1") == []
    site.fleet("devices", "approve", "pi-1", "--key-id", key_id[:16])
    assert end(site, "pi-1") == 0
    assert "enrolled as pi-1 in fleet demo" in site.log("pi-1")
    site.start_agent("pi-1")
    site.wait("the device on the broker", lambda: site.get("/devices/pi-1")["online"])
    assert json.loads(site.fleet("devices", "requests", "--json")) == []
    assert site.get("/claims")["claims"][0]["uses_left"] == 0


def test_a_board_that_is_denied_ends_with_the_reason(site: Site) -> None:
    claim(site, "--approve")
    begin(site, "pi-1")
    site.fleet("devices", "deny", "pi-1")
    assert end(site, "pi-1") == 1
    assert "the fleet refused: an operator denied 'pi-1' under this key" in site.log("pi-1")
    assert certificates(site, "pi-1") == []
    assert site.get("/devices")["devices"] == []


def test_only_boards_on_the_list_come_in_and_only_with_the_key_that_is_listed(site: Site) -> None:
    made = PrivateKey.generate_p256()
    (site.root / "pi-2" / "identity").mkdir(parents=True)
    made.save(site.root / "pi-2" / "identity" / "device.key")
    listed = site.root / "batch.txt"
    listed.write_text(f"# of today\npi-2 {made.public.id}\npi-3 {made.public.id}\n")
    claim(site, "--for", "pi-1", "--for-file", listed)

    said = site.run(*enrolment(site, "pi-9"), ok=(1,))
    assert "the claim is not for 'pi-9'" in said
    said = site.run(*enrolment(site, "pi-3"), ok=(1,))
    assert "lists 'pi-3' with another key" in said
    assert (certificates(site, "pi-9"), certificates(site, "pi-3")) == ([], [])
    assert site.get("/claims")["claims"][0]["uses_left"] == 3

    for device in ("pi-1", "pi-2"):
        site.run(*enrolment(site, device))
    assert [view["id"] for view in site.get("/devices")["devices"]] == ["pi-1", "pi-2"]

    # a list that turns out to be empty does not become a claim for everybody
    listed.write_text("# nobody\n")
    assert "names no device" in site.fleet("devices", "claim", "--for-file", listed, ok=(1,))
    assert "names no device" in site.fleet("devices", "claim", "--for", "", ok=(1,))
    spoilt = site.fleet("devices", "claim", "--for", "pi-1 abc", ok=(3,))
    assert "'abc' is no key id" in spoilt
