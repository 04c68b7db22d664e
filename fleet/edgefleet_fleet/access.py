"""Who asks, and may they: a bearer token, the cookie of a page that somebody opened, a device.

The cookie holds a random session id; it is HttpOnly and SameSite=Strict, so no other site can use
it, and a change that a browser says comes from another origin is refused even so (ports of one
host count as one site). Tokens that are none are counted by `throttle.py`; sessions are not (a
page whose session ended asks again and again, and an id cannot be guessed either).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from edgefleet_contract.bundle import sha256
from edgefleet_contract.throttle import Limit, Throttle
from edgefleet_fleet.budgets import Budgets, Standing
from edgefleet_fleet.errors import Denied, TooMany, Unknown
from edgefleet_fleet.records import User
from edgefleet_fleet.roles import Permission, may, roles_with
from edgefleet_fleet.tls import peer_of
from edgefleet_fleet.users import SESSION_S, Users
from edgefleet_fleet.work import Actor, Room

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(slots=True)
class Access:
    """The door of one control room."""

    room: Room
    users: Users
    throttle: Throttle = field(default_factory=Throttle)
    budgets: Budgets | None = None

    def __post_init__(self) -> None:
        calls = self.room.config.calls_per_minute
        if calls and self.budgets is None:
            self.budgets = Budgets(Limit(calls, calls / 60))

    def count(self, user: str) -> Standing | None:
        """Count a call of a user; None where calls are not limited."""
        return self.budgets.take(user, now=self.room.clock()) if self.budgets is not None else None

    @property
    def cookie_name(self) -> str:
        """Another for each control room: a browser's cookies do not tell ports apart."""
        return f"edgefleet-{sha256(self.room.authority.pem.encode())[:8]}"

    def actor(self, request: Request, permission: Permission) -> Actor:
        """Who asks.

        Raises:
            Unknown: nobody that is known.
            Denied: somebody whose role may not.
            TooMany: too many wrong tokens came from there.
        """
        user = self.user(request)
        if not may(user.role, permission):
            needed = " or ".join(roles_with(permission))
            raise Denied(
                f"{user.name} is {user.role}: this needs the role {needed}",
                hint="ask an admin: fleet users --help",
            )
        return Actor(user.name, address_of(request))

    def reader(self, request: Request) -> None:
        """Let by a device in service, by its certificate, or a user that may read.

        Raises:
            Denied: the device was revoked or forgotten; or as `actor` does.
        """
        peer = peer_of(request)
        if peer is None:
            self.actor(request, Permission.READ)
            return
        with self.room.store.begin() as tx:
            device = tx.devices.get(peer.name)
        is_ours = peer.is_of(self.room.authority.certificate)
        if not is_ours or device is None or not device.is_active or device.key_id != peer.key_id:
            raise Denied(f"no device in service has the name {peer.name[:80]!r} and this key")

    def user(self, request: Request) -> User:
        """The user behind a request. Raises what `actor` does."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.open(token.strip(), address=address_of(request))
        session = request.cookies.get(self.cookie_name)
        user = self.users.by_session(session) if session else None
        if user is None:
            raise Unknown(
                "this needs a token",
                hint="set FLEET_TOKEN, or name the data directory with --data",
            )
        if request.method not in _SAFE and not _is_own_page(request):
            raise Denied("a page of another origin asked for this")
        return user

    def open(self, token: str, *, address: str) -> User:
        """Whose token this is.

        Raises:
            Unknown: nobody's, or it was revoked, or is past its time.
            TooMany: too many wrong tokens came from there.
        """
        now = self.room.clock()
        seconds = self.throttle.wait(address, now=now)
        if seconds:
            raise TooMany(seconds)
        user = self.users.by_token(token)
        if user is None:
            self.throttle.failed(address, now=now)
            raise Unknown("this token is not known here, was revoked, or is past its time")
        self.throttle.succeeded(address, now=now)
        return user

    def enter(self, request: Request, token: str, response: Response) -> User:
        """Exchange a token for a session, whose cookie the response sets. Raises as `open` does."""
        if not _is_own_page(request):
            raise Denied("a page of another origin asked for this")
        address = address_of(request)
        user = self.open(token, address=address)
        response.set_cookie(
            self.cookie_name,
            self.users.begin_session(user, address=address),
            max_age=SESSION_S,
            httponly=True,
            samesite="strict",
            path=f"{self.room.prefix}/",
            secure=request.url.scheme == "https" or self.room.base_url.startswith("https:"),
        )
        return user

    def leave(self, request: Request, response: Response) -> None:
        """End the session of a page, and take its cookie away."""
        session = request.cookies.get(self.cookie_name)
        if session and _is_own_page(request):
            self.users.end_session(session)
        path = f"{self.room.prefix}/"
        response.delete_cookie(self.cookie_name, path=path, httponly=True, samesite="strict")


def address_of(request: Request) -> str:
    """The address of the client; empty where the server does not know it."""
    return request.client.host if request.client is not None else ""


def _is_own_page(request: Request) -> bool:
    """Whether a browser says that one of our pages asks, or a person, or says nothing.

    Browsers send `Sec-Fetch-Site` (W3C Fetch Metadata) to https and localhost, and no page can
    forge it; elsewhere SameSite=Strict stands alone.
    """
    return request.headers.get("sec-fetch-site", "none") in ("same-origin", "none")
