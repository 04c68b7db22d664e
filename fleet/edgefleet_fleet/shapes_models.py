"""What the API answers of bundles, models, rollouts, trust and webhooks (see `shapes.py`)."""

from __future__ import annotations

from typing import Any

from edgefleet_contract.bundle import Role
from edgefleet_fleet.rollout_states import State
from edgefleet_fleet.shapes import Document, MemberShape, OrderedTarget, PageShape, Shape, time


class Bundle(Shape):
    """A bundle under one signature."""

    name: str
    model: str
    version: int
    digest: str
    signature_sha256: str
    size: int
    signer: str
    verified: bool
    complete: bool
    in_clear: bool
    created_at: int = time()
    created_by: str


class Bundles(PageShape):
    """Bundles, newest first."""

    bundles: list[Bundle]


class MissingBlob(Shape):
    """A blob that is to be sent."""

    path: str
    sha256: str
    size: int


class ReceivedBundle(Bundle):
    """A bundle that was announced, and the blobs that the shelf lacks."""

    missing: list[MissingBlob]


class BundleFile(Shape):
    """A file of a bundle."""

    path: str
    role: Role
    size: int
    sha256: str
    chunk_list_sha256: str
    on_shelf: bool


class Papers(Shape):
    """Model card and provenance (bundle.md, section 6)."""

    card: Document | None
    provenance: Document | None
    problems: list[str]


class BundleDetail(Bundle):
    """A bundle with its files, its report, and what its papers say."""

    files: list[BundleFile]
    report: Any
    papers: Papers


class Blob(Shape):
    """A blob that is there."""

    sha256: str
    size: int


class Upload(Shape):
    """How far the upload of a blob is."""

    sha256: str
    offset: int


class Variant(Shape):
    """A variant of a version."""

    name: str
    format: str


class Version(Shape):
    """A version of a model, and where it is."""

    version: int
    digest: str
    size: int
    signer: str
    created_at: int = time()
    created_by: str
    complete: bool
    released: bool
    revoked: str | None
    variants: list[Variant]
    devices: int
    rollouts: list[str]


class Model(Shape):
    """A model with its versions, newest first."""

    model: str
    versions: list[Version]


class ListedModel(Shape):
    """A model."""

    model: str
    newest: int
    versions: int
    devices: int
    rollout: str | None


class Models(PageShape):
    """Models by name."""

    models: list[ListedModel]


class ListedRollout(OrderedTarget):
    """A rollout; `counts` and `by_reason` are numbers of devices."""

    id: str
    state: State
    cause: str | None
    why: str
    signature_sha256: str
    to: str
    canaries: list[str]
    waves: list[int | str]
    wave: int
    wave_count: int
    wave_states: list[str]
    blocked: list[str]
    approved_by: str
    evidence: dict[str, Document]
    max_failures: int | None
    plan: Document | None
    policy: Document
    allow_downgrade: bool
    excused: int
    created_at: int = time()
    created_by: str
    ended_at: int | None
    counts: dict[str, int]
    by_reason: dict[str, int]


class GateReading(Shape):
    """A model gate on a hardware class: `figure` against `limit`, of `sample` of the `needed` that
    are `counted`; `certainty`: how near the evidence is to a stop, 0 to 1."""

    kind: str
    hardware: str
    limit: float
    figure: float
    sample: int
    needed: int
    counted: str
    is_required: bool
    certainty: float


class RolloutMember(MemberShape):
    """A device of a rollout."""

    online: bool


class Rollout(ListedRollout):
    """A rollout with its devices, what it waits for in words, and what its gates read."""

    devices: list[RolloutMember]
    waits_for: list[str]
    gates: list[GateReading]


class Visit(Shape):
    """A device that would get it: its wave, from 0, and when at the earliest; None: not at all."""

    device: str
    kind: str
    wave: int
    at: int | None


class Rehearsal(Shape):
    """A dry run, in the order in which devices would be asked."""

    devices: list[Visit]


class Rollouts(PageShape):
    """Rollouts, newest first."""

    rollouts: list[ListedRollout]


class Key(Shape):
    """A public key."""

    key_id: str
    algorithm: str
    pem: str


class NextKey(Shape):
    """A key that was made, and is not in use yet."""

    key_id: str
    pem: str


class SignedDocument(Shape):
    """A TUF document: its version, and until when it is good."""

    version: int
    expires: int = time()


class Trust(Shape):
    """Who may sign what, what is released and revoked, until when; documents in base64."""

    documents: dict[str, SignedDocument]
    root_sha256: str
    root_threshold: int
    roots: list[Key]
    publishers: list[Key]
    repository: Key
    directors: list[Key]
    released: dict[str, str]
    revoked: Document
    root: str
    targets: str
    policy: Document


class TrustIdentity(Shape):
    """The control room's public keys, for a root ceremony."""

    fleet: str
    ca: str
    director: str
    repository: str
    has_root: bool


class Webhook(Shape):
    """A webhook, and how far it is; without its secret."""

    name: str
    url: str
    events: list[str]
    created_at: int = time()
    created_by: str
    cursor: int
    attempts: int
    next_at: int = time()
    failing_since: int | None
    last_error: str
    stopped: bool


class MadeWebhook(Webhook):
    """A new webhook; `secret` is said here once and never again."""

    secret: str


class Webhooks(PageShape):
    """Webhooks by name."""

    webhooks: list[Webhook]


class Health(Shape):
    """Whether the control room works."""

    status: str
    fleet: str
    version: str
    broker_connected: bool
    fleets: dict[str, int] | None = None
