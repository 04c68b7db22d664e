"""Routes: rollouts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from edgefleet_contract import codec
from edgefleet_contract.order_policy import Policy
from edgefleet_fleet import rollout_views, shapes_models
from edgefleet_fleet.api_common import Operator, Reader, Route, Since, TheServices
from edgefleet_fleet.api_paging import ThePages
from edgefleet_fleet.cohort import parse_waves
from edgefleet_fleet.model_gates import DEFAULT_GATES, ModelGate
from edgefleet_fleet.paging import page_of
from edgefleet_fleet.policy_file import check_rate
from edgefleet_fleet.rollout_plan import Plan
from edgefleet_fleet.rollout_states import State
from edgefleet_fleet.rollout_verbs import SENTENCES, Verb
from edgefleet_fleet.shapes import said
from edgefleet_fleet.wishes import Wish

router = APIRouter(prefix="/api/v1/rollouts", tags=["rollouts"], route_class=Route)


class RolloutBody(BaseModel):
    """What is to run, on which devices, how carefully; see `fleet push-model --help`."""

    model_config = ConfigDict(extra="forbid")

    bundle: str = Field(pattern=r"^[0-9a-f]{64}$")
    signature_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    slot: str = ""
    to: str = "all"
    canaries: list[str] = []
    waves: list[int | str] = [100]
    max_failures: int | None = None
    gate: dict[str, Any] = {}  # the words of [fleet-api-5.5]
    model_gates: list[dict[str, Any]] = []
    reference: dict[str, Any] = {}
    envelope: dict[str, Any] = {}
    pace: dict[str, Any] = {}
    retries: dict[str, Any] = {}
    soak_s: int = 0
    hold_after: list[int] = []
    start_at: int = 0
    expires_at: int = 0
    approve_by: str = ""
    policy: dict[str, Any] = {}  # the words of the wire's policy [wire-4.6]
    allow_downgrade: bool = False
    sealed: bool = False
    draft: bool = False

    def wish(self) -> Wish:
        """The same as the control room takes it.

        Raises:
            Malformed: a word is not known, or the plan contradicts itself.
        """
        gate = dict(self.gate)
        if self.max_failures is not None:
            gate["max_failures"] = self.max_failures
        document: dict[str, Any] = {
            "salt": "",
            "waves": [codec.encode(w) for w in parse_waves(",".join(map(str, self.waves)))],
            "canaries": self.canaries,
            "gate": gate,
            "reference": self.reference,
            "envelope": self.envelope,
            "pace": self.pace,
            "retries": self.retries,
            "soak_s": self.soak_s,
            "hold_after": self.hold_after,
            "start_at": self.start_at,
            "expires_at": self.expires_at,
            "approve_by": self.approve_by,
        }
        plan = codec.decode(Plan, document, what="rollout")
        asked = [codec.decode(ModelGate, word, what="model gate") for word in self.model_gates]
        kinds = {gate.kind for gate in asked}
        usual = [gate for gate in DEFAULT_GATES if gate.kind not in kinds]
        policy = codec.decode(Policy, self.policy, what="policy")
        check_rate(policy)
        return Wish(
            bundle=self.bundle,
            signature_sha256=self.signature_sha256,
            slot=self.slot,
            to=self.to,
            plan=dataclasses.replace(plan, model_gates=(*asked, *usual)),
            policy=policy,
            allow_downgrade=self.allow_downgrade,
            sealed=self.sealed,
            is_draft=self.draft,
        )


class LabelBody(BaseModel):
    """What became known of a device's answers."""

    model_config = ConfigDict(extra="forbid")

    device: str
    right: int = Field(ge=0, le=1_000_000)
    wrong: int = Field(ge=0, le=1_000_000)


@router.post("", status_code=201, responses=said(shapes_models.Rollout, 201))
def begin(body: RolloutBody, services: TheServices, actor: Operator) -> Any:
    """Begin a rollout of a complete bundle, or draft one."""
    rollout = services.deployments.create(body.wish(), actor=actor)
    if not body.sealed:
        services.deltas.expect(body.bundle)
    return _view(services, rollout)


@router.post("/rehearse", responses=said(shapes_models.Rehearsal))
def rehearse(body: RolloutBody, services: TheServices, _actor: Operator) -> Any:
    """A dry run: who would get it, in which wave, and when at the earliest."""
    return {"devices": rollout_views.visits(services.deployments.rehearse(body.wish()))}


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
        return pages.answer("rollouts", page, rollout_views.rollouts(tx, page.rows))


@router.get("/{rollout}", responses=said(shapes_models.Rollout))
def show(rollout: str, services: TheServices, _actor: Reader) -> Any:
    """One rollout with its devices and refusals by reason."""
    return _view(services, rollout)


def _steering(verb: Verb) -> Callable[..., Any]:
    def steer(rollout: str, services: TheServices, actor: Operator) -> Any:
        services.deployments.steer(rollout, verb, actor=actor)
        return _view(services, rollout)

    steer.__doc__ = SENTENCES[verb]
    return steer


for _verb in Verb:
    if _verb is not Verb.ABORT:
        router.post(
            f"/{{rollout}}/{_verb}", name=_verb.value, responses=said(shapes_models.Rollout)
        )(_steering(_verb))


@router.post("/{rollout}/abort", responses=said(shapes_models.Rollout))
def abort(rollout: str, services: TheServices, actor: Operator, revert: bool = False) -> Any:
    """End it; devices that have the new version keep it, or with `revert` go back."""
    verb = Verb.REVERT if revert else Verb.ABORT
    services.deployments.steer(rollout, verb, actor=actor)
    return _view(services, rollout)


@router.post("/{rollout}/labels", responses=said(shapes_models.Rollout))
def label(rollout: str, body: LabelBody, services: TheServices, actor: Operator) -> Any:
    """Take delayed labels: so many answers of a device were right, so many wrong."""
    services.deployments.label(
        rollout, body.device, right=body.right, wrong=body.wrong, actor=actor
    )
    return _view(services, rollout)


def _view(services: TheServices, rollout: str) -> Any:
    with services.room.store.begin() as tx:
        return rollout_views.rollout(tx, rollout, now=int(services.room.clock()))
