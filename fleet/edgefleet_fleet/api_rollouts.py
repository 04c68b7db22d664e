"""Routes: rollouts."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from edgefleet_contract import codec
from edgefleet_contract.order_policy import Policy
from edgefleet_fleet import shapes_models, views
from edgefleet_fleet.api_common import Operator, Reader, Since, TheServices
from edgefleet_fleet.api_paging import ThePages
from edgefleet_fleet.deployments import Wish
from edgefleet_fleet.paging import page_of
from edgefleet_fleet.rollout import State
from edgefleet_fleet.shapes import said

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


@router.post("", status_code=201, responses=said(shapes_models.Rollout, 201))
def begin(body: RolloutBody, services: TheServices, actor: Operator) -> Any:
    """Begin a rollout of a complete bundle."""
    fields = body.model_dump()
    fields["canaries"], fields["waves"] = tuple(body.canaries), tuple(body.waves)
    fields["policy"] = codec.decode(Policy, body.policy, what="policy")
    rollout = services.deployments.create(Wish(**fields), actor=actor)
    if not body.sealed:
        services.deltas.expect(body.bundle)
    return _view(services, rollout)


@router.get("", responses=said(shapes_models.Rollouts))
def list_rollouts(
    services: TheServices,
    _actor: Reader,
    pages: ThePages,
    state: State | None = None,
    model: str = "",
    since: Since = 0,
) -> Any:
    """The rollouts, newest first, with counts; in one state, of one model, since a time."""
    before = pages.before("rollouts")
    with services.room.store.begin() as tx:
        rows = tx.rollouts.page(
            limit=pages.limit + 1, before=before, state=state, model=model, since=since
        )
        page = page_of(rows, lambda row: (row.number,), limit=pages.limit)
        return pages.answer("rollouts", page, views.rollouts(tx, page.rows))


@router.get("/{rollout}", responses=said(shapes_models.Rollout))
def show(rollout: str, services: TheServices, _actor: Reader) -> Any:
    """One rollout with its devices and refusals by reason."""
    return _view(services, rollout)


@router.post("/{rollout}/pause", responses=said(shapes_models.Rollout))
def pause(rollout: str, services: TheServices, actor: Operator) -> Any:
    """Stop asking more devices."""
    services.deployments.pause(rollout, actor=actor)
    return _view(services, rollout)


@router.post("/{rollout}/resume", responses=said(shapes_models.Rollout))
def resume(rollout: str, services: TheServices, actor: Operator) -> Any:
    """Go on, and take the failures so far as seen."""
    services.deployments.resume(rollout, actor=actor)
    return _view(services, rollout)


@router.post("/{rollout}/abort", responses=said(shapes_models.Rollout))
def abort(rollout: str, services: TheServices, actor: Operator) -> Any:
    """End it; devices that have the new version keep it."""
    services.deployments.abort(rollout, actor=actor)
    return _view(services, rollout)


def _view(services: TheServices, rollout: str) -> Any:
    with services.room.store.begin() as tx:
        return views.rollout(tx, rollout)
