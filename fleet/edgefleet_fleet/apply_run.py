"""Carries a plan out, step by step, and stops at the first refusal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgefleet_contract.errors import EdgefleetError, OperatorError
from edgefleet_fleet import cli_show as show
from edgefleet_fleet.apply_plan import Action, Plan, Step
from edgefleet_fleet.client import Client


@dataclass(slots=True)
class Outcome:
    """How far it came: what was done, what was refused and why, what was not begun."""

    done: list[tuple[Step, Any]] = field(default_factory=list)
    failed: Step | None = None
    error: EdgefleetError | None = None
    left: tuple[Step, ...] = ()

    @property
    def rollouts(self) -> list[str]:
        """The rollouts that were begun."""
        return [str(answer["id"]) for step, answer in self.done if step.action is Action.ROLL_OUT]


def carry_out(
    room: Client, plan: Plan, *, secrets: Path | None, tell: Callable[[Step], None]
) -> Outcome:
    """Do the steps in their order; `tell` hears of each that was done."""
    outcome = Outcome()
    for number, step in enumerate(plan.steps):
        try:
            answer = _do(room, step, secrets)
        except EdgefleetError as error:
            outcome.failed, outcome.error = step, error
            outcome.left = plan.steps[number + 1 :]
            return outcome
        outcome.done.append((step, answer))
        tell(step)
    return outcome


def makes_secrets(plan: Plan) -> bool:
    """Whether a step is answered with a secret that is said only once."""
    return any(step.noun == "webhook" and step.action is not Action.REMOVE for step in plan.steps)


def _do(room: Client, step: Step, secrets: Path | None) -> Any:
    name = show.quote(step.name)
    if step.noun == "group":
        if step.action is Action.REMOVE:
            return room.delete(f"/groups/{name}")
        return room.put(f"/groups/{name}", step.body)
    if step.noun == "tags":
        return room.post(f"/devices/{name}/tags", step.body)
    if step.noun == "webhook":
        return _webhook(room, step, secrets)
    return room.post("/rollouts", step.body)


def _webhook(room: Client, step: Step, secrets: Path | None) -> None:
    if step.action is not Action.ADD:
        room.delete(f"/webhooks/{show.quote(step.name)}")
    if step.action is Action.REMOVE:
        return
    assert secrets is not None
    made = room.post("/webhooks", step.body)
    line = json.dumps({"name": made["name"], "secret": made["secret"]}) + "\n"
    try:
        fd = os.open(secrets, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(line)
    except OSError as error:
        room.delete(f"/webhooks/{show.quote(step.name)}")  # nobody will ever know its secret
        raise OperatorError(f"cannot write {secrets}: {error.strerror}") from None
