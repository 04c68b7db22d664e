"""The API as the command line calls it: HTTP by requests, problems as the errors that they are.

Over https the control room is verified before the token is said: against the authority that is
named, else against the system's.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import requests

from edgefleet_contract.errors import EdgefleetError, Malformed, OperatorError, TransientError
from edgefleet_contract.errors import Unverified as UnverifiedError
from edgefleet_contract.reasons import Reason
from edgefleet_fleet.errors import Conflict, Denied, NotFound

_TIMEOUT: Final = (5, 60)
_PIECE: Final = 256 * 1024


class Client:
    """One control room, by its URL, the operator's token, and the authority of its certificate."""

    def __init__(self, url: str, token: str, *, ca: Path | None = None) -> None:
        self.url = url.rstrip("/")
        if ca is not None and not ca.is_file():
            raise OperatorError(f"there is no certificate authority {ca}", hint="--ca, FLEET_CA")
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy between an operator and the control room
        self._session.verify = str(ca) if ca is not None else _system_authorities()
        self._session.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, *, timeout: tuple[float, float] = _TIMEOUT) -> Any:
        """The JSON of `GET /api/v1{path}`. Raises what the control room refused with."""
        return self._call("GET", path, timeout=timeout)

    def post(self, path: str, body: object | None = None) -> Any:
        """The JSON of `POST /api/v1{path}`."""
        return self._call("POST", path, json=body if body is not None else {})

    def put(self, path: str, body: object) -> Any:
        """The JSON of `PUT /api/v1{path}`."""
        return self._call("PUT", path, json=body)

    def delete(self, path: str) -> None:
        """`DELETE /api/v1{path}`."""
        self._call("DELETE", path)

    def put_file(
        self, path: str, file: Path, *, offset: int = 0, sent: Callable[[int], None] | None = None
    ) -> Any:
        """Upload a file to `/api/v1{path}` from `offset` on, streamed; `sent` hears of progress."""
        try:
            with file.open("rb") as source:
                source.seek(offset)
                pieces = _pieces(source, sent or (lambda _count: None))
                url = f"{path}?offset={offset}"
                return self._call("PUT", url, data=pieces, timeout=(5, 3600))
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
        """The lines of an export, as they come, without the last, which counts them [api-14.6].

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

    def watch(self) -> requests.Response:
        """The open stream of changes; a line arrives at least every 15 seconds."""
        try:
            response = self._session.get(f"{self.url}/api/v1/events", stream=True, timeout=(5, 30))
        except requests.RequestException as error:
            raise self._unreachable(error) from None
        if response.status_code != 200:
            raise _error(response)
        return response

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        arguments.setdefault("timeout", _TIMEOUT)
        try:
            response = self._session.request(method, f"{self.url}/api/v1{path}", **arguments)
        except requests.RequestException as error:
            raise self._unreachable(error) from None
        if response.status_code >= 400:
            raise _error(response)
        return response.json() if response.content else None

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
    if status in (401, 403):
        return Denied(message, hint=hint)
    if status == 404:
        return NotFound(message, hint=hint)
    if status == 409:
        return Conflict(message, hint=hint)
    if status == 422:
        reason = _reason(body.get("reason"))
        if reason in (Reason.UNKNOWN_KEY, Reason.BAD_SIGNATURE, Reason.BUNDLE_MISMATCH):
            return UnverifiedError(message, reason=reason, hint=hint)
        return Malformed(message, reason=reason, hint=hint)
    if status in (429, 502, 503, 504):
        return TransientError(message, hint=hint)
    return OperatorError(message, hint=hint)


def _reason(word: object) -> Reason:
    try:
        return Reason(str(word))
    except ValueError:
        return Reason.MALFORMED
