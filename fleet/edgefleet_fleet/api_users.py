"""Routes: users, and the way in for pages."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from edgefleet_fleet import api_resources, shapes, views
from edgefleet_fleet.api_common import Admin, Route, TheServices
from edgefleet_fleet.api_paging import ThePages
from edgefleet_fleet.paging import cut
from edgefleet_fleet.roles import Role
from edgefleet_fleet.shapes import said

router = APIRouter(prefix="/api/v1", tags=["users"], route_class=Route)


class UserBody(BaseModel):
    """A name, what it may do, and for how many days (left out: until it is revoked)."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    role: Role
    days: float | None = None


class LoginBody(BaseModel):
    """A user's token."""

    token: str = Field(max_length=200)


@router.get("/users", responses=said(shapes.Users))
def list_users(services: TheServices, _actor: Admin, pages: ThePages) -> Any:
    """All users by name, revoked ones too, without their tokens."""
    after = pages.after("users", str)
    known = services.access.users.list()
    page = cut(known, lambda found: (found.name,), limit=pages.limit, after=after)
    return pages.answer("users", page, [views.user(found) for found in page.rows])


@router.get("/users/{name}", responses=said(shapes.User))
def show_user(name: str, services: TheServices, _actor: Admin) -> Any:
    """One user, without its token."""
    with services.room.store.begin() as tx:
        return api_resources.user(services, tx, name)


@router.post("/users", status_code=201, responses=said(shapes.MadeUser, 201))
def add_user(body: UserBody, services: TheServices, actor: Admin) -> Any:
    """Add a user; the answer is the only place where its token is ever said."""
    user, token = services.access.users.add(body.name, body.role, days=body.days, actor=actor)
    return views.user(user) | {"token": token}


@router.delete("/users/{name}", status_code=204)
def revoke_user(name: str, services: TheServices, actor: Admin) -> Response:
    """End a user's token and pages, at once."""
    services.access.users.revoke(name, actor=actor)
    return Response(status_code=204)


@router.post("/login", responses=said(shapes.LoggedIn))
def login(body: LoginBody, request: Request, response: Response, services: TheServices) -> Any:
    """Exchange a token for the cookie of a page: 12 hours."""
    user = services.access.enter(request, body.token, response)
    return {"name": user.name, "role": user.role}


@router.post("/logout", status_code=204)
def logout(request: Request, services: TheServices) -> Response:
    """End the session of the cookie."""
    response = Response(status_code=204)
    services.access.leave(request, response)
    return response
