"""A client of the fleet's API: what the command line uses, and what your own programs can.

    with Client("https://fleet.example:8080", token) as fleet:
        for device in fleet.list("/devices", to="tag.site=hall3"):
            print(device["id"])

Thin on purpose: paths and JSON are those of docs/spec/fleet-api.md. What it adds is what every
caller needs: pages are followed, what is to be made is made once however often it is sent, "try
again" (429, 503) is heeded, and a refusal is an exception of `errors.py` with its hint. Over https
the control room is verified before the token is said: against the authority that is named, else
against the system's. A client may be used by one thread at a time.
"""

from __future__ import annotations

import json
import random
import secrets
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self
from urllib.parse import urlencode

import requests

from edgefleet_contract.errors import EdgefleetError, Malformed, OperatorError, TransientError
from edgefleet_contract.errors import Unverified as UnverifiedError
from edgefleet_contract.reasons import Reason
from edgefleet_fleet.doctor import SAY_WHO
from edgefleet_fleet.errors import Changed, Conflict, Denied, Mismatch, NotFound

__all__ = ["Client", "new_key"]

_TIMEOUT: Final = (5, 60)
_PIECE: Final = 256 * 1024
_PAGE: Final = 500
_FIRST_WAIT_S: Final = 0.5
_REPEATABLE: Final = frozenset({"GET", "PUT", "DELETE"})


def new_key() -> str:
    """A new idempotency key. Keep it for as long as the request may have to be sent again."""
    return secrets.token_urlsafe(18)


class Client:
    """One control room, by its URL, a user's token, and the authority of its certificate.

    Args:
        url: as `fleet serve` prints it.
        token: a user's (`fleet users add`), or that of `operator.token`.
        ca: PEM file of the authority; left out: the system's.
        patience_s: seconds that a call may spend on waiting after "try again"; 0: none.
    """

    def __init__(
        self, url: str, token: str, *, ca: Path | None = None, patience_s: float = 10
    ) -> None:
        self.url = url.rstrip("/")
        if ca is not None and not ca.is_file():
            raise OperatorError(f"there is no certificate authority {ca}", hint="--ca, FLEET_CA")
        self._patience_s = patience_s
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy between an operator and the control room
        self._session.verify = str(ca) if ca is not None else _system_authorities()
        self._session.headers["Authorization"] = f"Bearer {token}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def get(self, path: str, *, timeout: tuple[float, float] = _TIMEOUT) -> Any:
        """The JSON of `GET /api/v1{path}`.

        Raises:
            EdgefleetError: what the control room refused with: NotFound, Denied, Malformed (a
                wrong filter, say); TransientError: not reached, or not within `patience_s`.
        """
        return self._call("GET", path, timeout=timeout).json()

    def read(self, path: str) -> tuple[Any, str]:
        """What `get` gives, and its ETag: hand that to a change as `if_match`."""
        response = self._call("GET", path)
        return response.json(), response.headers.get("ETag", "")

    def list(self, path: str, **filters: object) -> Iterator[Any]:
        """Every entry of a list, page by page, as it is asked for.

        Args:
            path: of the list, such as `/devices`.
            filters: of the list, such as `to`, `state`, `model`, `since`; None is left out.
        """
        wanted = {name: value for name, value in filters.items() if value is not None}
        after = None
        while True:
            asked = {"limit": _PAGE, **wanted} | ({"after": after} if after else {})
            page = self.get(f"{path}?{urlencode(asked)}")
            (noun,) = (name for name in page if isinstance(page[name], list))
            yield from page[noun]
            after = page["next"]
            if after is None:
                return

    def post(
        self, path: str, body: object | None = None, *, key: str = "", if_match: str = ""
    ) -> Any:
        """The JSON of `POST /api/v1{path}`.

        Args:
            path: where to.
            body: JSON.
            key: an idempotency key (`new_key()`): what is made is made once, so the call is also
                sent again when the answer was lost on its way, or was "try again".
            if_match: what `read` gave: Changed is raised where it is another now.

        Raises:
            Conflict, Changed, Mismatch (the key stood for another request); and as `get`.
        """
        more = {"Idempotency-Key": key} if key else {}
        found = self._call(
            "POST",
            path,
            json=body if body is not None else {},
            headers=_conditions(if_match) | more,
            is_repeatable=bool(key),
        )
        return found.json() if found.content else None

    def put(self, path: str, body: object, *, if_match: str = "") -> Any:
        """The JSON of `PUT /api/v1{path}`. Raises as `post` does."""
        return self._call("PUT", path, json=body, headers=_conditions(if_match)).json()

    def delete(self, path: str, *, if_match: str = "") -> None:
        """`DELETE /api/v1{path}`. Raises as `post` does."""
        self._call("DELETE", path, headers=_conditions(if_match))

    def put_file(
        self, path: str, file: Path, *, offset: int = 0, sent: Callable[[int], None] | None = None
    ) -> Any:
        """Upload a file to `/api/v1{path}` from `offset` on, streamed; `sent` hears of progress."""
        try:
            with file.open("rb") as source:
                source.seek(offset)
                pieces = _pieces(source, sent or (lambda _count: None))
                url = f"{path}?offset={offset}"
                found = self._call("PUT", url, data=pieces, timeout=(5, 3600), is_repeatable=False)
                return found.json()
        except OSError as error:
            raise OperatorError(f"cannot read {file}: {error.strerror}") from None

    def health(self) -> requests.Response:
        """The answer of `/healthz`, which needs no token; also one that says that all is not well.

        Raises:
            Unverified: the certificate is not of the authority that is believed.
            TransientError: nothing answers.
        """
        try:
            return self._session.get(f"{self.url}/healthz", timeout=_TIMEOUT)
        except requests.RequestException as error:
            raise self._unreachable(error) from None

    def lines(self, path: str) -> Iterator[str]:
        """The lines of an export as they come, without the count at the end [fleet-api-14.6].

        Raises:
            TransientError: it broke off; or what `get` raises.
        """
        count, line = 0, ""
        try:
            with self._session.get(
                f"{self.url}/api/v1{path}", stream=True, timeout=_TIMEOUT
            ) as answer:
                if answer.status_code >= 400:
                    raise _error(answer)
                for raw in answer.iter_lines(chunk_size=_PIECE):
                    if line:
                        yield line
                        count += 1
                    line = raw.decode()
        except requests.exceptions.ChunkedEncodingError:
            raise TransientError("the control room stopped in the middle of its answer") from None
        except requests.RequestException as error:
            raise self._unreachable(error) from None
        if line != f'{{"end":{count}}}':
            raise TransientError("the control room stopped in the middle of its answer")

    def changes(self) -> Iterator[Any]:
        """What changes, as it happens: `{"noun": "rollout", "id": "digits-7-r3"}`.

        It says that something changed, not what: ask for it. It ends when the control room does.
        """
        with self.watch() as stream:
            for line in stream.iter_lines(chunk_size=1):
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])

    def watch(self) -> requests.Response:
        """The open stream of changes; a line arrives at least every 15 seconds."""
        try:
            response = self._session.get(f"{self.url}/api/v1/events", stream=True, timeout=(5, 30))
        except requests.RequestException as error:
            raise self._unreachable(error) from None
        if response.status_code != 200:
            raise _error(response)
        return response

    def _call(
        self, method: str, path: str, *, is_repeatable: bool | None = None, **arguments: Any
    ) -> requests.Response:
        """An answer that is no refusal; what may be sent again is, while there is patience."""
        arguments.setdefault("timeout", _TIMEOUT)
        again = method in _REPEATABLE if is_repeatable is None else is_repeatable
        left_s, tries = self._patience_s, 0
        while True:
            try:
                response = self._session.request(method, f"{self.url}/api/v1{path}", **arguments)
            except requests.RequestException as error:
                # Only an answer that was lost: who does not listen at all is told at once.
                lost = isinstance(error, requests.ReadTimeout) or "aborted" in str(error)
                if not (again and lost):
                    raise self._unreachable(error) from None
                wait_s, why = 0.0, self._unreachable(error)
            else:
                if response.status_code < 400:
                    return response
                wait_s, why = _told_to_wait(response), _error(response)
                is_early = response.status_code == 429  # nothing was looked at
                if not (response.status_code in (429, 503) and (again or is_early)):
                    raise why
                if "data" in arguments:  # a file that was read already
                    raise why
            # Full jitter (Brooker, AWS Architecture Blog, 2015), never below what was told.
            wait_s = max(wait_s, _FIRST_WAIT_S * 2**tries * random.random())
            if wait_s >= left_s:
                raise why
            time.sleep(wait_s)
            left_s, tries = left_s - wait_s, tries + 1

    def _unreachable(self, error: requests.RequestException) -> EdgefleetError:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            why = str(error).partition("certificate verify failed: ")[2].partition(" (_ssl")[0]
            return UnverifiedError(
                f"what answers at {self.url} is not known to be the control room: {why}",
                hint="name the authority of its certificate: FLEET_CA, or fleet --ca FILE",
            )
        kind = type(error).__name__
        return TransientError(
            f"cannot reach the control room at {self.url} ({kind})",
            hint="is `fleet serve` running? name it with --url or FLEET_URL; https:// with TLS",
        )


def _conditions(if_match: str) -> dict[str, str]:
    return {"If-Match": if_match} if if_match else {}


def _told_to_wait(response: requests.Response) -> float:
    after = response.headers.get("Retry-After", "")
    return float(after) if after.isdigit() and len(after) < 6 else 0.0


def _pieces(source: IO[bytes], sent: Callable[[int], None]) -> Iterator[bytes]:
    while piece := source.read(_PIECE):
        yield piece
        sent(len(piece))


def _system_authorities() -> str | bool:
    found = ssl.get_default_verify_paths()
    return found.cafile or found.capath or True


def _error(response: requests.Response) -> EdgefleetError:
    try:
        body = response.json()
    except ValueError:
        body = {}
    message = str(body.get("detail") or f"HTTP status {response.status_code}")
    hint = str(body.get("hint", ""))
    status = response.status_code
    if status == 401:
        return Denied(message, hint=hint or SAY_WHO)
    if status == 403:
        return Denied(message, hint=hint)
    if status == 404:
        return NotFound(message, hint=hint)
    if status == 409:
        return Conflict(message, hint=hint)
    if status == 412:
        return Changed(message, hint=hint)
    if status == 422 and message.startswith("idempotency key"):
        return Mismatch(message, hint=hint)
    if status == 422:
        reason = _reason(body.get("reason"))
        if reason in (Reason.UNKNOWN_KEY, Reason.BAD_SIGNATURE, Reason.BUNDLE_MISMATCH):
            return UnverifiedError(message, reason=reason, hint=hint)
        return Malformed(message, reason=reason, hint=hint)
    if status in (429, 502, 503, 504):
        return TransientError(message, hint=hint, retry_after_s=_told_to_wait(response))
    return OperatorError(message, hint=hint)


def _reason(word: object) -> Reason:
    try:
        return Reason(str(word))
    except ValueError:
        return Reason.MALFORMED
