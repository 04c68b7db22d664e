"""Routes: webhooks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from edgefleet_fleet.api_common import Admin, TheServices
from edgefleet_fleet.webhooks import Webhook

router = APIRouter(prefix="/api/v1", tags=["webhooks"])


class WebhookBody(BaseModel):
    """A name, an address, and patterns over the words of the audit trail."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    url: str = Field(min_length=1, max_length=1000)
    events: list[str] = Field(default=["rollout.*"], min_length=1, max_length=32)


@router.get("/webhooks")
def list_webhooks(services: TheServices, _actor: Admin) -> Any:
    """All webhooks, without their secrets."""
    return {"webhooks": [view(found) for found in services.webhooks.list()]}


@router.post("/webhooks", status_code=201)
def add_webhook(body: WebhookBody, services: TheServices, actor: Admin) -> Any:
    """Add a webhook; the answer is the only place where its secret is ever said."""
    found = services.webhooks.add(body.name, body.url, tuple(body.events), actor=actor)
    return view(found) | {"secret": found.secret}


@router.post("/webhooks/{name}/resume")
def resume_webhook(name: str, services: TheServices, actor: Admin) -> Any:
    """Go on at once, from where it stopped."""
    return view(services.webhooks.resume(name, actor=actor))


@router.delete("/webhooks/{name}", status_code=204)
def remove_webhook(name: str, services: TheServices, actor: Admin) -> Response:
    """End a webhook."""
    services.webhooks.remove(name, actor=actor)
    return Response(status_code=204)


def view(found: Webhook) -> dict[str, Any]:
    """A webhook as the API shows it."""
    return {key: value for key, value in asdict(found).items() if key != "secret"}
