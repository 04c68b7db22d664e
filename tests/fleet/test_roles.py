"""Every role at every route; and that the specification says what the code does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from edgefleet_fleet.api import create_app
from edgefleet_fleet.api_common import OPEN, Needs
from edgefleet_fleet.roles import PERMISSIONS, Permission, Role, may, roles_with, table
from edgefleet_fleet.services import Services
from tests.fleet.stage import ME
from tests.fleet.web import Web, serving

SPEC = Path(__file__).parents[2] / "docs" / "spec" / "fleet-api.md"


def routes(services: Services) -> list[BaseRoute]:
    found: list[BaseRoute] = []
    for route in create_app(services).routes:
        inner = getattr(getattr(route, "original_router", None), "routes", None)
        found += inner if inner is not None else [route]
    return found


def permission_of(route: BaseRoute) -> Permission | None:
    """What a route declares that it needs; None for nothing."""
    if not isinstance(route, APIRoute):
        return None
    needs = [d.call.permission for d in route.dependant.dependencies if isinstance(d.call, Needs)]
    assert len(needs) <= 1, route.path
    return needs[0] if needs else None


def guarded(services: Services) -> list[tuple[str, str, Permission]]:
    """Method, path and permission of every route that declares one."""
    found = []
    for route in routes(services):
        needed = permission_of(route)
        if needed is not None:
            assert isinstance(route, APIRoute)
            found += [(method, route.path, needed) for method in sorted(route.methods)]
    return found


def test_every_route_declares_its_permission_or_is_on_the_open_list(services: Services) -> None:
    seen = set()
    for route in routes(services):
        path = getattr(route, "path", "")
        assert path, route
        seen.add(path)
        assert (permission_of(route) is None) == (path in OPEN), path
    assert seen >= OPEN
    assert len(guarded(services)) > 30


def test_the_specification_has_the_table_of_roles_and_the_routes(services: Services) -> None:
    text = SPEC.read_text()
    assert table() in text, f"put this into docs/spec/fleet-api.md:\n{table()}"
    lines = ["| needs | routes below `/api/v1` |", "|---|---|"]
    for permission in Permission:
        names = [
            f"`{method} {path.removeprefix('/api/v1')}`"
            for method, path, needed in guarded(services)
            if needed is permission and path.startswith("/api/v1")
        ]
        lines.append(f"| `{permission}` | {', '.join(sorted(names, key=by_path))} |")
    wanted = "\n".join(lines)
    assert wanted in text, f"put this into docs/spec/fleet-api.md:\n{wanted}"


def by_path(name: str) -> tuple[str, str]:
    method, _, path = name.strip("`").partition(" ")
    return path, method


def test_a_publisher_is_no_operator_and_the_other_way_round() -> None:
    assert not PERMISSIONS[Role.PUBLISHER] >= PERMISSIONS[Role.OPERATOR]
    assert not PERMISSIONS[Role.OPERATOR] >= PERMISSIONS[Role.PUBLISHER]
    assert PERMISSIONS[Role.ADMIN] == frozenset(Permission)
    assert roles_with(Permission.ADMINISTER) == (Role.ADMIN,)
    assert all(may(role, Permission.READ) for role in Role)


@pytest.fixture
def http(services: Services) -> Iterator[Web]:
    with serving(create_app(services)) as web:
        yield web


@pytest.mark.parametrize("role", list(Role))
def test_every_route_answers_each_role_as_the_table_says(
    services: Services, http: Web, role: Role
) -> None:
    _, token = services.access.users.add(f"a-{role}", role, days=None, actor=ME)
    headers = {"Authorization": f"Bearer {token}"}
    for method, path, needed in [*guarded(services), ("GET", "/", Permission.READ)]:
        url = re.sub(r"\{\w+\}", "1", path)
        body = {} if method == "POST" else None
        with http.request(method, url, headers=headers, json=body, stream=True) as answer:
            if may(role, needed):
                assert answer.status_code not in (401, 403, 429, 500), (method, path)
            else:
                assert answer.status_code == 403, (method, path)
                needs = " or ".join(roles_with(needed))
                assert answer.json()["detail"].endswith(f"this needs the role {needs}")
