"""What there is in a control room, as far as a declared file speaks of it: asked over the API."""

from __future__ import annotations

import json
from typing import Any

from edgefleet_contract import codec
from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.order_policy import Policy
from edgefleet_contract.trust import RevokedPolicy, release_path
from edgefleet_fleet import cli_show as show
from edgefleet_fleet.apply_how import how
from edgefleet_fleet.apply_plan import (
    BundleNow,
    Declared,
    DeviceNow,
    Group,
    Hook,
    Present,
    RolloutNow,
    groups_after,
    in_full,
)
from edgefleet_fleet.client import Client
from edgefleet_fleet.rollout_plan import Plan


def gather(room: Client, declared: Declared) -> Present:
    """What there is.

    Raises:
        OperatorError: the token may not see it, or a filter names a group that is nowhere.
    """
    groups = {row["name"]: Group(row["filter"], row["about"]) for row in room.list("/groups")}
    devices = {
        row["id"]: DeviceNow(
            row["tags"],
            {model["slot"]: (model["model"], model["version"]) for model in row["models"]},
        )
        for row in room.list("/devices")
        if not row["revoked_at"]
    }
    meant: dict[str, frozenset[str]] = {}
    after = groups_after(declared, groups)
    for wanted in declared.rollouts or ():
        to = in_full(wanted, after)
        if to not in meant:
            found = room.get(f"/preview?to={show.quote(to)}")["devices"]
            meant[to] = frozenset(row["id"] for row in found) & devices.keys()
    return Present(
        fleet=str(room.health().json().get("fleet", "")),
        groups=groups,
        devices=devices,
        webhooks=_webhooks(room) if declared.webhooks is not None else {},
        bundles=_bundles(room) if declared.rollouts else {},
        rollouts=_rollouts(room) if declared.rollouts is not None else (),
        meant=meant,
    )


def _webhooks(room: Client) -> dict[str, Hook]:
    found = list(room.list("/webhooks"))
    return {row["name"]: Hook(row["url"], tuple(row["events"])) for row in found}


def _rollouts(room: Client) -> tuple[RolloutNow, ...]:
    rows = (json.loads(line) for line in room.lines("/export/rollouts"))
    return tuple(
        RolloutNow(
            *(row["id"], row["slot"], row["model"], row["version"], row["to"], row["state"]),
            how=_how(row),
        )
        for row in rows
    )


def _how(row: Any) -> dict[str, Any] | None:
    """How a rollout goes; None where it was begun by a release that knows more than this one."""
    try:
        plan = codec.decode(Plan, row["plan"], what="plan")
        policy = codec.decode(Policy, row["policy"], what="policy")
    except Malformed:
        return None
    return how(plan, policy, sealed=row["sealed"])


def _bundles(room: Client) -> dict[tuple[str, int], BundleNow]:
    try:
        trust = room.get("/trust")
    except OperatorError as error:
        trust = {"released": {}, "revoked": None, "why": error.message}
    found: dict[tuple[str, int], BundleNow] = {}
    for row in room.list("/bundles"):
        key = (row["model"], row["version"])
        now = BundleNow(row["digest"], row["signature_sha256"], _problem(row, trust))
        if key not in found or found[key].problem:
            found[key] = now
    return found


def _problem(row: Any, trust: Any) -> str:
    """Why a bundle cannot be rolled out; empty where it can."""
    if not row["complete"]:
        return "is not complete: fleet bundles push goes on where it ended"
    released = trust["released"].get(release_path(row["model"], row["version"]))
    if released != row["digest"]:
        return "is not released: fleet bundles push --key publisher.pem"
    revoked = codec.decode(RevokedPolicy, trust["revoked"], what="revoked", unknown=True)
    forbidden = revoked.forbids(row["model"], row["version"], Digest(row["digest"]))
    return f"may not run: {forbidden}" if forbidden else ""
