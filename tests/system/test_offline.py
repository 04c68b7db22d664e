"""Probation, commit and the way back are the device's own: with nobody to talk to, told later."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.agent.bundles import make_bundle
from tests.system.site import Site, open_site

pytestmark = pytest.mark.system


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A device that serves version 1, and is on probation with 2 when the fleet goes away."""
    with open_site(tmp_path) as opened:
        opened.enrol("pi-1")
        opened.start_agent("pi-1")
        first = opened.push(make_bundle(tmp_path / "bundles", 1, key=opened.publisher))
        opened.wait("version 1", lambda: opened.rollout_state(first) == "completed")
        yield opened


def cut_off_on_probation(site: Site, *flags: str) -> str:
    bundle = make_bundle(site.root / "bundles", 2, key=site.publisher)
    rollout = site.push(bundle, *flags)
    site.wait("probation", lambda: has_said(site, "activating -> probation"))
    site.kill("fleet")
    return rollout


def has_said(site: Site, step: str) -> bool:
    """Whether the device has come so far with version 2."""
    return f"digits@2: {step}" in site.log("pi-1")


def kill_worker(site: Site) -> None:
    """The process that runs the newest model, as a crash of the runtime would end it."""
    workers = [
        child
        for child in psutil.Process(site.processes["pi-1"].pid).children(recursive=True)
        if child.name() == "edge-worker"
    ]
    os.kill(max(workers, key=lambda child: child.create_time()).pid, signal.SIGKILL)


def test_a_version_that_fails_goes_back_offline_and_the_fleet_hears_of_it_later(
    site: Site,
) -> None:
    rollout = cut_off_on_probation(site, "--probation", "60")
    kill_worker(site)
    site.wait("the way back", lambda: has_said(site, "rolling_back -> rolled_back"))
    assert site.version("pi-1") == 1
    assert site.ask("pi-1")[0] == 200
    site.start_fleet()
    site.wait("the rollout to stop", lambda: site.rollout_state(rollout) == "paused")
    view = site.get("/devices/pi-1")
    assert [model["version"] for model in view["models"]] == [1]
    assert "probation_failed" in str(site.get(f"/rollouts/{rollout}"))


def test_a_version_that_holds_is_committed_offline_and_the_fleet_hears_of_it_later(
    site: Site,
) -> None:
    rollout = cut_off_on_probation(site, "--probation", "3")
    site.wait("the commit", lambda: has_said(site, "probation -> committed"))
    assert site.version("pi-1") == 2
    site.start_fleet()
    site.wait("the rollout", lambda: site.rollout_state(rollout) == "completed")
