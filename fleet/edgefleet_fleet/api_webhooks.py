"""Routes: webhooks."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from edgefleet_fleet import api_resources, shapes_models, views
from edgefleet_fleet.api_common import Admin, Route, TheServices
from edgefleet_fleet.api_paging import ThePages
from edgefleet_fleet.paging import cut
from edgefleet_fleet.shapes import said

router = APIRouter(prefix="/api/v1", tags=["webhooks"], route_class=Route)


class WebhookBody(BaseModel):
    """A name, an address, and patterns over the words of the audit trail."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    url: str = Field(min_length=1, max_length=1000)
    events: list[str] = Field(default=["rollout.*"], min_length=1, max_length=32)


@router.get("/webhooks", responses=said(shapes_models.Webhooks))
def list_webhooks(services: TheServices, _actor: Admin, pages: ThePages) -> Any:
    """All webhooks by name, without their secrets."""
    after = pages.after("webhooks", str)
    known = services.webhooks.list()
    page = cut(known, lambda found: (found.name,), limit=pages.limit, after=after)
    return pages.answer("webhooks", page, [views.webhook(found) for found in page.rows])


@router.get("/webhooks/{name}", responses=said(shapes_models.Webhook))
def show_webhook(name: str, services: TheServices, _actor: Admin) -> Any:
    """One webhook, and how far it is, without its secret."""
    with services.room.store.begin() as tx:
        return api_resources.webhook(services, tx, name)


@router.post("/webhooks", status_code=201, responses=said(shapes_models.MadeWebhook, 201))
def add_webhook(body: WebhookBody, services: TheServices, actor: Admin) -> Any:
    """Add a webhook; the answer is the only place where its secret is ever said."""
    found = services.webhooks.add(body.name, body.url, tuple(body.events), actor=actor)
    return views.webhook(found) | {"secret": found.secret}


@router.post("/webhooks/{name}/resume", responses=said(shapes_models.Webhook))
def resume_webhook(name: str, services: TheServices, actor: Admin) -> Any:
    """Go on at once, from where it stopped."""
    return views.webhook(services.webhooks.resume(name, actor=actor))


@router.delete("/webhooks/{name}", status_code=204)
def remove_webhook(name: str, services: TheServices, actor: Admin) -> Response:
    """End a webhook."""
    services.webhooks.remove(name, actor=actor)
    return Response(status_code=204)
