"""Routes: rollouts."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from edgefleet_contract import codec
from edgefleet_contract.order_policy import Policy
from edgefleet_fleet import views
from edgefleet_fleet.api_common import Operator, Reader, TheServices
from edgefleet_fleet.deployments import Wish

router = APIRouter(prefix="/api/v1/rollouts", tags=["rollouts"])


class RolloutBody(BaseModel):
    """What is to run, on which devices, how carefully; see `fleet push-model --help`."""

    model_config = ConfigDict(extra="forbid")

    bundle: str = Field(pattern=r"^[0-9a-f]{64}$")
    signature_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    slot: str = ""
    to: str = "all"
    canaries: list[str] = []
    waves: list[int] = [100]
    max_failures: int | None = None
    policy: dict[str, Any] = {}  # the words of the wire's policy [wire-4.6]
    allow_downgrade: bool = False
    sealed: bool = False


@router.post("", status_code=201)
def begin(body: RolloutBody, services: TheServices, actor: Operator) -> Any:
    """Begin a rollout of a complete bundle."""
    fields = body.model_dump()
    fields["canaries"], fields["waves"] = tuple(body.canaries), tuple(body.waves)
    fields["policy"] = codec.decode(Policy, body.policy, what="policy")
    rollout = services.deployments.create(Wish(**fields), actor=actor)
    if not body.sealed:
        services.deltas.expect(body.bundle)
    return _view(services, rollout)


@router.get("")
def list_rollouts(services: TheServices, _actor: Reader) -> Any:
    """The newest rollouts, newest first, with counts."""
    with services.room.store.begin() as tx:
        return {"rollouts": views.rollouts(tx)}


@router.get("/{rollout}")
def show(rollout: str, services: TheServices, _actor: Reader) -> Any:
    """One rollout with its devices and refusals by reason."""
    return _view(services, rollout)


@router.post("/{rollout}/pause")
def pause(rollout: str, services: TheServices, actor: Operator) -> Any:
    """Stop asking more devices."""
    services.deployments.pause(rollout, actor=actor)
    return _view(services, rollout)


@router.post("/{rollout}/resume")
def resume(rollout: str, services: TheServices, actor: Operator) -> Any:
    """Go on, and take the failures so far as seen."""
    services.deployments.resume(rollout, actor=actor)
    return _view(services, rollout)


@router.post("/{rollout}/abort")
def abort(rollout: str, services: TheServices, actor: Operator) -> Any:
    """End it; devices that have the new version keep it."""
    services.deployments.abort(rollout, actor=actor)
    return _view(services, rollout)


def _view(services: TheServices, rollout: str) -> Any:
    with services.room.store.begin() as tx:
        return views.rollout(tx, rollout)
