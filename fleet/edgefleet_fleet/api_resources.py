"""What `If-Match` means: for each resource that can be changed, what its `GET` shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from edgefleet_fleet import device_views, rollout_views, views
from edgefleet_fleet.adapters.sql.store import Transaction
from edgefleet_fleet.errors import NotFound
from edgefleet_fleet.groups import devices_of, meant
from edgefleet_fleet.services import Services

View = Callable[[Services, Transaction, Any], Any]


def view_of(
    services: Services, route: str, parameters: Mapping[str, Any]
) -> Callable[[Transaction], Any] | None:
    """What shows the resource that a route is about; None where it is about none."""
    for path, (name, view) in RESOURCES.items():
        if route == path or route.startswith(f"{path}/"):
            return lambda tx: view(services, tx, parameters[name])
    return None


def group(_services: Services, tx: Transaction, name: str) -> Any:
    """One group, with its devices."""
    row = tx.groups.get(name)
    if row is None:
        raise NotFound(f"there is no group {name[:80]!r}", hint="fleet groups list")
    return device_views.group(row, devices_of(tx, meant(tx, row.filter)))


def user(_services: Services, tx: Transaction, name: str) -> Any:
    """One user."""
    found = tx.users.get(name)
    if found is None:
        raise NotFound(f"there is no user {name[:80]!r}", hint="fleet users list")
    return views.user(found)


def webhook(_services: Services, tx: Transaction, name: str) -> Any:
    """One webhook, without its secret."""
    found = tx.webhooks.get(name)
    if found is None:
        raise NotFound(f"there is no webhook {name[:80]!r}", hint="fleet webhooks list")
    return views.webhook(found)


def claim(_services: Services, tx: Transaction, number: int | str) -> Any:
    """One claim, without its secret. Its number may be as the path has it: not looked at yet."""
    text = str(number)
    is_number = text.isascii() and text.isdigit() and len(text) < 19
    found = tx.claims.get(int(text)) if is_number else None
    if found is None:
        raise NotFound(f"there is no claim {text[:80]}", hint="fleet devices claims")
    return views.claim(found)


RESOURCES: Final[dict[str, tuple[str, View]]] = {
    "/api/v1/bundles/{digest}": (
        "digest",
        lambda services, tx, name: views.bundle_detail(tx, services.room.shelf, name),
    ),
    "/api/v1/claims/{number}": ("number", claim),
    "/api/v1/devices/{device}": ("device", lambda _services, tx, name: views.device(tx, name)),
    "/api/v1/groups/{name}": ("name", group),
    "/api/v1/rollouts/{rollout}": (
        "rollout",
        lambda services, tx, name: rollout_views.rollout(tx, name, now=int(services.room.clock())),
    ),
    "/api/v1/users/{name}": ("name", user),
    "/api/v1/webhooks/{name}": ("name", webhook),
}
