"""Who may ask: the operator's bearer token, or the cookie that the page was opened with.

The data base has the token's SHA-256 only. The cookie is derived from the token and does not
reveal it; it is HttpOnly and SameSite=Strict, so no other site can use it. All comparisons take
constant time.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from starlette.requests import Request

from edgefleet_fleet.errors import Denied
from edgefleet_fleet.work import Actor

SETTING: Final = "operator_token_sha256"


class Access:
    """Checks tokens and cookies against the hash of the one operator token."""

    def __init__(self, token_sha256: str) -> None:
        self._hash = token_sha256
        self.cookie_name = f"edgefleet-{token_sha256[:8]}"
        self.cookie_value = hmac.new(
            token_sha256.encode(), b"edgefleet page", hashlib.sha256
        ).hexdigest()

    def is_token(self, token: str) -> bool:
        """Whether this is the operator's token."""
        return hmac.compare_digest(hash_token(token), self._hash)

    def has_cookie(self, request: Request) -> bool:
        """Whether the request comes from a page that was opened with the token."""
        found = request.cookies.get(self.cookie_name, "")
        return hmac.compare_digest(found.encode(), self.cookie_value.encode())

    def actor(self, request: Request) -> Actor:
        """Who asks.

        Raises:
            Denied: nobody that may.
        """
        address = request.client.host if request.client is not None else ""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(token.strip()):
            return Actor("operator", address)
        if self.has_cookie(request):
            return Actor("page", address)
        raise Denied(
            "this needs the operator's token",
            hint="set FLEET_TOKEN, or name the data directory with --data",
        )


def hash_token(token: str) -> str:
    """What the data base keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()
