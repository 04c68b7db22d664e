"""The API held against its own OpenAPI document, by schemathesis: `python -m tests.fleet.api_fuzz`.

A control room with devices, bundles, a rollout, groups and users answers requests that follow the
document, and others that break it, over a real socket. What counts: answers of 500 and more (of
which there is to be none), and answers that the document does not have: a status, a content type,
a header or a shape. Paths name what is there in two of three requests. The stream of changes is
left out, since it does not end. On SQLite and on PostgreSQL, one after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.phases import Phase as InstallPhase
from edgefleet_contract.throttle import Limit, Throttle
from edgefleet_fleet.adapters.sql.store import sqlite_url
from edgefleet_fleet.api import create_app
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.roles import Role
from edgefleet_fleet.services import Services
from tests.fleet.postgres import Cluster
from tests.fleet.stage import ME, TOKEN, Clock, Stage, open_services
from tests.fleet.web import serving

ENDLESS = "/api/v1/events"
_PATIENCE_S = 120  # a loaded machine is slow, not wrong
DATABASES = ("sqlite", "postgresql")
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


@dataclass
class Found:
    """What came of a run."""

    operations: int = 0
    calls: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    server_errors: list[str] = field(default_factory=list)
    undocumented: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """As it is printed."""
        return {
            "operations": self.operations,
            "calls": self.calls,
            "statuses": {str(status): self.statuses[status] for status in sorted(self.statuses)},
            "server_errors": len(self.server_errors),
            "undocumented": len(self.undocumented),
        }


def run(
    services: Services,
    known: dict[str, list[Any]],
    *,
    examples: int,
    number: int,
    in_turns: bool = False,
) -> Found:
    """Ask each operation so often as the document says, and so often not as it says.

    Args:
        services: the control room, with something in it.
        known: for each parameter of a path, what is there.
        examples: requests for each operation and half.
        number: the seed; the same one asks the same again.
        in_turns: one operation so and the next one not so, for a short run.
    """
    app = create_app(services)
    services.access.budgets = None
    unlimited = Limit(1e9, 1)  # wrong tokens are among what is sent
    services.access.throttle = Throttle(unlimited, unlimited)
    document = app.openapi()
    found, dice = Found(), random.Random(number)
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    with serving(app) as web:
        schema = schemathesis.openapi.from_dict(document)
        for result in schema.get_all_operations():
            operation: Any = result.ok()
            if operation.path == ENDLESS:
                continue
            found.operations += 1
            for mode in modes[found.operations % 2 :][:1] if in_turns else modes:
                _ask(
                    operation, mode, web.base, known, found, dice, examples=examples, number=number
                )
    return found


def _ask(
    operation: Any,
    mode: Any,
    base: str,
    known: dict[str, list[Any]],
    found: Found,
    dice: random.Random,
    *,
    examples: int,
    number: int,
) -> None:
    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        for name in case.path_parameters:
            if name in known and dice.random() < 0.66:
                case.path_parameters[name] = dice.choice(known[name])
        answer = case.call(
            base_url=base, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=_PATIENCE_S
        )
        found.calls += 1
        found.statuses[answer.status_code] += 1
        what = f"{operation.method.upper()} {operation.path} {answer.status_code}"
        if answer.status_code >= 500:
            found.server_errors.append(f"{what}: {case.as_curl_command()}")
        try:
            case.validate_response(answer, checks=CHECKS)
        except BaseExceptionGroup as group:
            for failure in group.exceptions:
                found.undocumented.append(f"{what}: {str(failure)[:600]}")

    try:
        ask()
    except Exception as error:
        if "Unsatisfiable" not in type(error).__name__ and "skip" not in str(error).lower():
            raise


def populate(stage: Stage) -> dict[str, list[Any]]:
    """Let there be something; the parameters of paths that name it."""
    devices = [f"pi-{number}" for number in range(1, 13)]
    stage.devices(*devices)
    services = stage.services
    first = stage.roll_out(1, to="id=pi-1|pi-2|pi-3", waves=(100,))
    stage.commit("pi-1")
    order = stage.order("pi-2")
    assert order is not None
    stage.say("pi-2", order, InstallPhase.DOWNLOADING)
    second = stage.roll_out(2, to="id=pi-4", waves=(100,))
    services.groups.put("hall3", "tag.site=hall3", actor=ME)
    services.groups.tag("pi-1", {"site": "hall3"}, [], actor=ME)
    services.access.users.add("ada", Role.VIEWER, days=None, actor=ME)
    services.webhooks.add("chat", "https://example.org/hook", ("rollout.*",), actor=ME)
    claim, _ = services.enrolment.make_claim(uses=3, hours=1, actor=ME)
    with services.room.store.begin() as tx:
        bundles = tx.bundles.list()
        blobs = [str(file.sha256) for bundle in bundles for file in tx.bundles.files(bundle.digest)]
    return {
        "device": devices,
        "rollout": [first, second],
        "name": ["hall3", "ada", "chat", "root.json", "timestamp.json"],
        "number": [claim],
        "digest": [str(bundle.digest) for bundle in bundles] + ["digits-1"],
        "sha256": blobs,
        "old": blobs,
        "model": ["digits"],
    }


@contextlib.contextmanager
def database(kind: str, data: Path) -> Iterator[str]:
    """The address of an empty data base."""
    if kind == "sqlite":
        yield sqlite_url(DataDir(data).database)
        return
    with Cluster.start() as cluster:
        yield cluster.new_database()


def ask_all(kind: str, *, examples: int, number: int) -> Found:
    """All questions to a new control room on such a data base."""
    publisher = PrivateKey.generate_p256()
    roots = [PrivateKey.generate_ed25519() for _ in range(3)]
    with tempfile.TemporaryDirectory() as folder, database(kind, Path(folder) / "data") as url:
        services = open_services(Path(folder) / "data", Clock(), publisher, roots, url)
        try:
            known = populate(Stage(services, publisher, Path(folder)))
            return run(services, known, examples=examples, number=number)
        finally:
            services.room.store.close()


def main() -> None:
    """Run, print the figures, and with what is not as it should be end with 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--examples", type=int, default=100, help="requests of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=[*DATABASES, "both"], default="both")
    asked = parser.parse_args()
    failed = False
    for kind in DATABASES if asked.database == "both" else (asked.database,):
        found = ask_all(kind, examples=asked.examples, number=asked.seed)
        for line in sorted(set(found.server_errors + found.undocumented)):
            print(line)
        print(json.dumps({"database": kind} | found.summary()), flush=True)
        failed = failed or bool(found.server_errors or found.undocumented)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
