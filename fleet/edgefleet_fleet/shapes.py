"""What the API answers of devices and the people around them, for the OpenAPI document.

The routes answer with what `views.py` gives; these models describe it, and are not run at each
answer: a field that is missing here is a gap in the document, found by a test that holds every
kind of answer against it, and never a 500 for somebody who asks. Fields may be added at any time.
`Document` is an object of the wire or of a bundle, whose fields stand in docs/spec.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from edgefleet_contract.commands import Kind
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_fleet.happenings import HistoryKind
from edgefleet_fleet.roles import Role

Document = dict[str, Any]
_TIME: Final = "Seconds since 1970."


def said(model: type[Any], status: int = 200) -> dict[int | str, dict[str, Any]]:
    """What a route declares of its answer: `responses=said(Device)`."""
    return {status: {"model": model}}


def body_of(model: type[Any]) -> dict[str, Any]:
    """What a route declares that reads its body by itself, for `openapi_extra`."""
    schema = TypeAdapter(model).json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def time() -> Any:
    """A field that is a time."""
    return Field(description=_TIME)


class Shape(BaseModel):
    """An answer."""


class PageShape(Shape):
    """A page of a list."""

    next: str | None = Field(description="`after` of the following page; null at the end.")


class Problem(Shape):
    """Why not (RFC 9457): `hint` says what to do, `reason` is a word of wire.md, section 6."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "there is no device 'pi-9'",
                    "hint": "fleet devices list",
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    detail: str
    hint: str = ""
    reason: str = ""


class OrderedTarget(Shape):
    """What is to run in a slot."""

    slot: str
    model: str
    version: int
    bundle_sha256: str
    sealed: bool


class Desired(Shape):
    """The newest order of a device."""

    seq: int
    rollout: str
    issued: int = time()
    expires: int = time()
    targets: list[OrderedTarget]


class Telemetry(Shape):
    """The newest samples: of the board, and of the model in each slot (wire.md, section 8)."""

    system: Document | None
    models: dict[str, Document]


class TelemetrySeries(Shape):
    """Samples, oldest first."""

    system: list[Document]
    models: dict[str, list[Document]]


class ListedDevice(Shape):
    """A device."""

    id: str
    online: bool
    seen_at: int = time()
    enrolled_at: int = time()
    certificate_expires: int = time()
    key_id: str
    seal_key: str
    revoked_at: int | None
    agent: str
    boot_id: str
    hw: str
    arch: str
    board: str
    hardware_class: str
    tags: dict[str, str]
    inventory: Document
    quarantined: list[str]
    engines: dict[str, str]
    phase: Phase | None
    detail: str
    order_seq: int
    rollout: str
    models: list[Document] = Field(description="What it says that it runs (wire.md, 3.7).")
    desired: Desired | None
    reason: Reason | None
    reason_text: str
    telemetry: Telemetry


class EventShape(Shape):
    """An entry of a device's history; null is what only a step of an install has (wire.md, 3)."""

    number: int
    received_at: int = time()
    kind: HistoryKind
    what: str
    detail: str
    who: str
    count: int
    until: int = time()
    ts: int = time()
    boot_id: str | None
    seq: int | None
    order_seq: int | None
    rollout: str | None
    phase: Phase | None
    models: list[str]
    measurements: Document
    reason: Reason | None
    reason_text: str


class MemberShape(Shape):
    """How far a device is with a rollout."""

    device: str
    wave: int
    kind: str
    outcome: str
    order_seq: int | None
    phase: Phase | None
    detail: str
    updated_at: int = time()
    tries: int
    retry_at: int = time()
    reason: Reason | None
    reason_text: str


class MemberOf(MemberShape):
    """A device's part in a rollout."""

    rollout: str


class Device(ListedDevice):
    """A device, with its newest events and its part in rollouts."""

    events: list[EventShape]
    rollouts: list[MemberOf]


class Devices(PageShape):
    """Devices by name."""

    devices: list[ListedDevice]


class Events(PageShape):
    """The history of a device, newest first."""

    events: list[EventShape]


class Tags(Shape):
    """All tags of a device."""

    tags: dict[str, str]


class Quarantine(Shape):
    """A bundle that failed on devices."""

    digest: str
    name: str
    devices: list[str]
    hardware_classes: dict[str, int]


class Quarantines(Shape):
    """Bundles in quarantine, the most frequent first."""

    quarantines: list[Quarantine]


class Claim(Shape):
    """The right to enrol, without its secret."""

    id: int
    created_at: int = time()
    created_by: str
    expires_at: int = time()
    uses_left: int
    trust_sha256: str
    revoked: bool
    approve: bool
    listed: int


class MadeClaim(Claim):
    """A new claim; `claim` is said here once and never again."""

    claim: str


class Claims(PageShape):
    """Claims, newest first."""

    claims: list[Claim]


class EnrolmentRequest(Shape):
    """A device that waits for an operator."""

    device: str
    key_id: str
    claim: int
    state: str
    hw: str
    board: str
    address: str
    created_at: int = time()


class EnrolmentRequests(PageShape):
    """Devices that wait, the oldest first."""

    requests: list[EnrolmentRequest]


class AuditEntry(Shape):
    """Who changed what."""

    number: int
    at: int = time()
    who: str
    what: str
    subject: str
    detail: str
    address: str


class Audit(PageShape):
    """The audit trail, newest first."""

    audit: list[AuditEntry]


class Group(Shape):
    """A filter with a name, and whom it means now."""

    name: str
    filter: str
    about: str
    created_at: int = time()
    created_by: str
    count: int
    devices: list[str]


class Groups(PageShape):
    """Groups by name."""

    groups: list[Group]


class PreviewedDevice(Shape):
    """A device that a filter means."""

    id: str
    online: bool
    hw: str
    hardware_class: str
    tags: dict[str, str]


class Preview(Shape):
    """Whom a filter means."""

    filter: str
    count: int
    devices: list[PreviewedDevice]


class ListedCommand(Shape):
    """A command to one device."""

    id: str
    request: str
    device: str
    number: int
    kind: Kind
    slot: str
    state: str
    issued: int = time()
    expires: int = time()
    created_by: str
    answered_at: int | None
    detail: str
    online: bool
    seen_at: int = time()


class Command(ListedCommand):
    """A command, with its answer where the caller may see it."""

    data: Document = {}


class GivenCommands(Shape):
    """The commands that were given at once."""

    request: str
    commands: list[Command]


class Commands(PageShape):
    """Commands of a device, newest first."""

    commands: list[ListedCommand]


class User(Shape):
    """A user, without the token."""

    name: str
    role: Role
    created_at: int = time()
    created_by: str
    expires_at: int | None
    revoked: bool


class MadeUser(User):
    """A new user; `token` is said here once and never again."""

    token: str


class Users(PageShape):
    """Users by name."""

    users: list[User]


class LoggedIn(Shape):
    """Whose page it is."""

    name: str
    role: Role


class Asker(Shape):
    """Who asks."""

    name: str
    role: Role


class Found(Shape):
    """A finding of the doctor: `ok`, `warn` or `fail`, and what to do."""

    name: str
    status: str
    found: str
    do: str


class Doctor(Shape):
    """What is well, what is not, and what to do."""

    fleet: str
    version: str
    who: Asker
    findings: list[Found]


class Fleet(Shape):
    """A fleet of a site."""

    name: str
    state: str
    why: str
    since: int
    url: str
    mqtt_host: str | None
    mqtt_port: int | None


class NewFleet(Fleet):
    """A fleet that was made, and the token of its first admin, said once."""

    token: str


class Fleets(Shape):
    """The other fleets of a site, by name."""

    fleets: list[Fleet]
