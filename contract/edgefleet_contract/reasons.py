"""Why an install did not happen: one word on the wire, counted by the fleet, shown to people.

The words are the specification's [wire-6]; `explain` gives the sentence that a person reads.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The word that crosses the wire. Free text goes beside it, never instead of it."""

    MALFORMED = "malformed"
    BAD_SIGNATURE = "bad_signature"
    UNKNOWN_KEY = "unknown_key"
    WRONG_DEVICE = "wrong_device"
    STALE_ORDER = "stale_order"
    ORDER_EXPIRED = "order_expired"
    METADATA_EXPIRED = "metadata_expired"
    METADATA_ROLLBACK = "metadata_rollback"
    METADATA_INVALID = "metadata_invalid"
    NOT_LISTED = "not_listed"
    REVOKED = "revoked"
    DOWNGRADE = "downgrade"
    QUARANTINED = "quarantined"
    POLICY_UNSUPPORTED = "policy_unsupported"
    AGENT_TOO_OLD = "agent_too_old"
    WRONG_HARDWARE = "wrong_hardware"
    NO_VARIANT = "no_variant"
    BUNDLE_MISMATCH = "bundle_mismatch"
    TOO_LARGE = "too_large"
    DIGEST_MISMATCH = "digest_mismatch"
    UNSEALING_FAILED = "unsealing_failed"
    NOT_FOUND = "not_found"
    DOWNLOAD_FAILED = "download_failed"
    NO_SPACE = "no_space"
    STORAGE_FAILED = "storage_failed"
    LOAD_FAILED = "load_failed"
    GOLDEN_MISMATCH = "golden_mismatch"
    TRIAL_CRASHED = "trial_crashed"
    TRIAL_TIMEOUT = "trial_timeout"
    LATENCY_EXCEEDED = "latency_exceeded"
    MEMORY_EXCEEDED = "memory_exceeded"
    SHADOW_DISAGREED = "shadow_disagreed"
    CANARY_FAILED = "canary_failed"
    ACTIVATION_FAILED = "activation_failed"
    PROBATION_FAILED = "probation_failed"
    LINK_LOST = "link_lost"
    TOO_MANY_ATTEMPTS = "too_many_attempts"
    SUPERSEDED = "superseded"
    INTERNAL = "internal"


_SENTENCES: dict[Reason, str] = {
    Reason.MALFORMED: "a document is not what the specification describes",
    Reason.BAD_SIGNATURE: "a signature does not match what it is said to sign",
    Reason.UNKNOWN_KEY: "it is signed by a key that this device does not trust",
    Reason.WRONG_DEVICE: "the order was written for another device or fleet",
    Reason.STALE_ORDER: "an order with this or a higher number was already taken",
    Reason.ORDER_EXPIRED: "the order is past its date, or lives longer than an order may",
    Reason.METADATA_EXPIRED: "what the publishers said last is past its date: it may be held back",
    Reason.METADATA_ROLLBACK: "what the publishers are said to say is older than what was seen",
    Reason.METADATA_INVALID: "what the publishers are said to say is not signed as it must be",
    Reason.NOT_LISTED: "no publisher released this bundle under this name and version",
    Reason.REVOKED: "the publishers took this release back",
    Reason.DOWNGRADE: "it is older than what runs, and the order does not permit going back",
    Reason.QUARANTINED: "this bundle failed on this device before",
    Reason.POLICY_UNSUPPORTED: "the order asks for what this device cannot do",
    Reason.AGENT_TOO_OLD: "the bundle needs a newer agent",
    Reason.WRONG_HARDWARE: "the bundle is not for this kind of board",
    Reason.NO_VARIANT: "no variant of the bundle fits a runtime of this device",
    Reason.BUNDLE_MISMATCH: "the bundle is not the one that the order names",
    Reason.TOO_LARGE: "the bundle is larger than the order allows",
    Reason.DIGEST_MISMATCH: "the bytes that arrived are not the bytes that were signed",
    Reason.UNSEALING_FAILED: "what was sealed could not be opened with the key of this device",
    Reason.NOT_FOUND: "the server does not have a file of the bundle",
    Reason.DOWNLOAD_FAILED: "the download did not finish in the tries that it has",
    Reason.NO_SPACE: "the disk has not enough room",
    Reason.STORAGE_FAILED: "the disk could not be read or written",
    Reason.LOAD_FAILED: "the runtime could not load the model",
    Reason.GOLDEN_MISMATCH: "the outputs on this device are not the signed golden outputs",
    Reason.TRIAL_CRASHED: "the model crashed its trial process",
    Reason.TRIAL_TIMEOUT: "the trial did not end in time",
    Reason.LATENCY_EXCEEDED: "it is slower here than its signed limit",
    Reason.MEMORY_EXCEEDED: "it needs more memory here than its signed limit",
    Reason.SHADOW_DISAGREED: "its answers differ from those of the model that serves",
    Reason.CANARY_FAILED: "it failed or was too slow while it answered a share of the requests",
    Reason.ACTIVATION_FAILED: "the new version could not be made to serve",
    Reason.PROBATION_FAILED: "the new version failed while it served on probation",
    Reason.LINK_LOST: "the broker was not reached while the new version was on probation",
    Reason.TOO_MANY_ATTEMPTS: "it was tried as often as it may be",
    Reason.SUPERSEDED: "a newer order took its place",
    Reason.INTERNAL: "the agent met an error of its own",
}


def explain(reason: Reason) -> str:
    """The sentence that a person reads for a reason."""
    return _SENTENCES[reason]
