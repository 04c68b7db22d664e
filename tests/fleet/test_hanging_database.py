"""A PostgreSQL that hangs: it takes connections and says nothing, which is worse than gone."""

from __future__ import annotations

import asyncio
import math
import re
import statistics
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

import edgefleet_fleet
from edgefleet_contract.errors import TransientError
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.phases import Phase
from edgefleet_fleet import site_folder
from edgefleet_fleet.adapters.sql.postgresql import Connection
from edgefleet_fleet.adapters.sql.store import Store
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.threads import MOST, Kind, Threads
from tests.contract.makers import write_bundle
from tests.fleet.device import Device, enrol
from tests.fleet.postgres import Cluster
from tests.fleet.running import Fleet, free_port, require, until
from tests.fleet.stage import FLEET
from tests.fleet.tenants import Tenant

_ASKED = 60


def test_an_answer_that_does_not_come_is_an_error_and_the_next_one_is_not(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(f"{cluster.new_database()}&connect_timeout=1")
    store.migrate()
    set_to(store, "before")
    monkeypatch.setattr(Connection, "answer_s", 0.3)
    with cluster.hanging(), pytest.raises(TransientError, match="does not answer") as refused:
        set_to(store, "meanwhile")  # neither the connection that there was, nor a new one
    assert refused.value.retry_after_s == 5
    with pytest.raises(TransientError, match=r"no answer in 0\.3 s"):
        hang_in_the_middle(store, cluster)
    with store.begin() as tx:
        assert tx.ledger.setting("kept") == "before"
    store.close()


def set_to(store: Store, value: str) -> None:
    with store.begin() as tx:
        tx.ledger.set_setting("kept", value)


def hang_in_the_middle(store: Store, cluster: Cluster) -> None:
    with store.begin() as tx:
        tx.ledger.set_setting("kept", "half")
        with cluster.hanging():
            tx.ledger.setting("kept")


def test_a_statement_that_takes_too_long_is_ended_by_the_server_too(cluster: Cluster) -> None:
    store = Store(cluster.new_database())
    with store.engine.begin() as connection:
        shown = [
            connection.exec_driver_sql(f"SHOW {name}").scalar()
            for name in ("statement_timeout", "idle_in_transaction_session_timeout")
        ]
    assert shown == ["8s", "2min"]
    with store.snapshot() as connection:  # a backup may take as long as it likes
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "0"
    store.close()


@pytest.mark.system
def test_one_fleet_that_hangs_holds_up_no_other_and_loses_nothing(
    cluster: Cluster, publisher: PrivateKey, tmp_path: Path
) -> None:
    require("mosquitto", "mosquitto")
    site = Fleet(tmp_path / "fleet", free_port(), free_port())
    DataDir(site.data).prepare(FLEET, public_host="")
    hung = Tenant(site.data / "fleets" / "pg", site.http_port, free_port())
    hung.name = "pg"
    site_folder.make(DataDir(hung.data), mqtt_port=hung.mqtt_port)
    with (hung.data / "fleet.toml").open("a") as file:
        file.write(f'database_url = "{cluster.new_database()}"\n')
    site.start()
    try:
        until(lambda: hung.health() == 200, timeout=60)
        hung.secret = DataDir(hung.data).read_token()
        hung.trust(publisher)
        claim = hung.client.post("/claims", {})["claim"]
        board = enrol(hung.url, claim, "cam", tmp_path / "cam")
        with Device(board, "pg") as device, ThreadPoolExecutor(_ASKED) as pool:
            hung.push(write_bundle(tmp_path / "bundle", publisher), to="id=cam")
            order = device.next_order()
            usual = statistics.median(how_long(site) for _ in range(9))
            with cluster.hanging():
                begun = time.monotonic()
                asked = [pool.submit(make_group, hung, number) for number in range(_ASKED)]
                for _ in range(20):
                    device.tell(order, Phase.DOWNLOADING)
                during = []
                while sum(answer.done() for answer in asked) < _ASKED - MOST[Kind.REQUEST]:
                    assert time.monotonic() - begun < 30
                    during.append(how_long(site))
            answers = [answer.result() for answer in asked]
        assert statistics.median(during) < 0.1 + 5 * usual
        assert max(during) < 3.0  # when the other fleet's requests hear that nobody answers
        statuses = Counter(status for status, _, _ in answers)
        assert statuses.keys() <= {200, 503}
        assert statuses[503] >= _ASKED - MOST[Kind.REQUEST]
        for status, kind, wait in answers:
            if status == 503:
                assert (kind, wait) == ("application/problem+json", "5")
        until(lambda: hung.health() == 200)
        groups = {group["name"] for group in hung.client.get("/groups")["groups"]}
        taken = {f"g{number}" for number, (status, *_) in enumerate(answers) if status == 200}
        assert taken
        assert taken <= groups
        until(lambda: len(steps(hung)) == 20)
    finally:
        assert site.stop() == 0
    assert "Traceback" not in site.log.read_text()


def steps(fleet: Tenant) -> list[object]:
    """What the device said of its install, as the fleet has it."""
    events = fleet.client.get("/devices/cam")["events"]
    return [event for event in events if event["kind"] == "install"]


def make_group(fleet: Fleet, number: int) -> tuple[int, str, str]:
    """Ask for a change; status, content type, and when to ask again."""
    answer = requests.put(
        f"{fleet.url}/api/v1/groups/g{number}",
        json={"filter": "all"},
        headers={"Authorization": f"Bearer {fleet.token}"},
        timeout=60,
    )
    return (
        answer.status_code,
        answer.headers["content-type"],
        answer.headers.get("retry-after", ""),
    )


def how_long(fleet: Fleet) -> float:
    """How long a list takes that needs the data base, in seconds."""
    begun = time.monotonic()
    assert fleet.client.get("/devices")["devices"] == []
    return time.monotonic() - begun


def test_threads_end_their_turns_when_they_end_and_not_when_nobody_waits() -> None:
    async def story() -> None:
        threads, free = Threads(patience_s=0.05), threading.Event()
        waits = [asyncio.create_task(threads.ask(free.wait)) for _ in range(MOST[Kind.REQUEST])]
        await asyncio.sleep(0)
        with pytest.raises(TransientError, match="all threads of this fleet wait"):
            await threads.ask(int)
        threads._moved[Kind.REQUEST] = math.inf  # others come and go
        waits.append(asyncio.create_task(threads.ask(free.wait)))
        await asyncio.wait(waits, timeout=0.2)
        assert not waits[-1].done()
        threads._moved[Kind.REQUEST] = 0.0
        with pytest.raises(TransientError):
            await waits.pop()
        assert await threads.run(int) == 0  # what it does by itself has threads of its own
        assert [piece async for piece in threads.each(iter("ab"))] == ["a", "b"]
        waits[0].cancel()
        with pytest.raises(TransientError):  # its thread still waits
            await threads.ask(int)
        free.set()
        assert await asyncio.gather(*waits[1:]) == [True] * len(waits[1:])
        assert await threads.ask(int) == 0
        await threads.close(patience_s=1)
        with pytest.raises(TransientError, match="taken down"):
            await threads.ask(int)

    asyncio.run(story())


def test_nothing_of_a_fleet_runs_on_threads_that_fleets_share() -> None:
    """Routes that are not async go by `Route`; what else blocks, by the fleet's `Threads`."""
    shared = {"server.py", "site.py"}  # what is the site's
    for path in sorted(Path(edgefleet_fleet.__path__[0]).rglob("*.py")):
        text = path.read_text()
        for router in re.findall(r"\bAPIRouter\(([^)]*)\)", text):
            assert "route_class=Route" in router, path
        if path.name not in shared:
            found = re.findall(r"\b(asyncio\.to_thread|run_in_threadpool|run_in_executor)\(", text)
            assert found == (["run_in_executor"] if path.name == "threads.py" else []), path
