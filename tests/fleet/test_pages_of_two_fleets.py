"""Two fleets' pages in a real browser: each below its own path, live, and without a complaint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.phases import Phase
from edgefleet_fleet import site_folder
from edgefleet_fleet.datadir import DataDir
from tests.contract.makers import write_bundle
from tests.fleet.browser import Browser
from tests.fleet.device import Device, enrol
from tests.fleet.running import Fleet, free_port, require, until
from tests.fleet.stage import FLEET
from tests.fleet.tenants import Tenant

pytestmark = pytest.mark.system
LIVE = "document.getElementById('live').classList.contains('on')"


@pytest.fixture
def tenants(tmp_path: Path, publisher: PrivateKey) -> Iterator[tuple[Tenant, Tenant]]:
    """Two fleets beside the site's own, which have been there since it started."""
    require("mosquitto", "mosquitto")
    site = Fleet(tmp_path / "fleet", free_port(), free_port())
    DataDir(site.data).prepare(FLEET, public_host="")
    a, b = (Tenant(site.data / "fleets" / name, site.http_port, free_port()) for name in "ab")
    for tenant in (a, b):
        tenant.name = tenant.data.name
        site_folder.make(DataDir(tenant.data), mqtt_port=tenant.mqtt_port)
    site.start()
    try:
        for tenant in (a, b):
            until(lambda tenant=tenant: tenant.health() == 200, timeout=60)  # type: ignore[misc] # bound now
            tenant.secret = DataDir(tenant.data).read_token()
            tenant.trust(publisher)
        yield a, b
    finally:
        assert site.stop() == 0


def test_every_page_of_two_fleets_works_below_its_own_path(
    tenants: tuple[Tenant, Tenant], publisher: PrivateKey, tmp_path: Path
) -> None:
    folder = write_bundle(tmp_path / "bundle", publisher)
    with Browser.start() as browser:
        for tenant in tenants:
            enter(browser, tenant)
            walk(browser, tenant, folder, tmp_path / tenant.name)
            assert browser.complaints == []
            left = [url for url in browser.asked if not url.startswith(f"{tenant.url}/")]
            assert left == []
            assert len(browser.asked) > 20
            browser.asked.clear()
        a, b = tenants
        browser.go(f"{a.url}/")  # its session is its own, and was not touched by b's
        assert "cam-a" in browser.text
        assert "cam-b" not in browser.text
        browser.click("form[action$='/logout'] button")
        assert browser.path == "/fleets/a/login"
        browser.go(f"{b.url}/")
        assert "cam-b" in browser.text
        assert browser.complaints == []


def enter(browser: Browser, tenant: Tenant) -> None:
    """Paste the token into the form."""
    browser.go(f"{tenant.url}/login")
    browser.type("#token", tenant.secret)
    browser.click("form.login button")
    assert browser.path == f"/fleets/{tenant.name}/"
    browser.see(LIVE)


def walk(browser: Browser, tenant: Tenant, folder: Path, home: Path) -> None:
    """Every page by its links, while something happens that they show."""
    prefix, name = f"/fleets/{tenant.name}", f"cam-{tenant.name}"
    loads = browser.loads
    board = enrol(tenant.url, tenant.client.post("/claims", {})["claim"], name, home)
    browser.see(f"document.body.innerText.includes('{name}')")
    assert browser.loads == loads  # it came by the stream
    with Device(board, tenant.name) as device:
        rollout = tenant.push(folder, to=f"id={name}")
        order = device.next_order()
        browser.click(f"main a[href='{prefix}/devices/{name}']")
        assert browser.path == f"{prefix}/devices/{name}"
        browser.see(LIVE)
        loads = browser.loads
        device.tell(order, Phase.DOWNLOADING)
        browser.see("document.querySelector('main').innerText.includes('downloading')")
        assert browser.loads == loads
        browser.click(f"nav a[href='{prefix}/rollouts']")
        browser.click(f"main a[href='{prefix}/rollouts/{rollout}']")
        browser.see(LIVE)
        browser.click("button[data-post$='/pause']", loads=False)
        browser.see("document.querySelector('button[data-post$=\"/resume\"]') !== null")
        browser.click("button[data-post$='/resume']", loads=False)
        browser.see("document.querySelector('button[data-post$=\"/pause\"]') !== null")
        loads = browser.loads
        device.commit(order)
        browser.see("document.querySelector('main').innerText.includes('completed')")
        assert browser.loads == loads
    browser.click(f"nav a[href='{prefix}/bundles']")
    browser.click(f"main a[href^='{prefix}/bundles/']")
    assert "v/model.onnx" in browser.text
    browser.click(f"a.brand[href='{prefix}/']")
    assert browser.path == f"{prefix}/"
