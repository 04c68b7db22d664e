"""Who may do what: roles are sets of permissions, in one table.

Pure. A publisher is not an operator with more rights: whoever says what may run does not thereby
say where it runs, and the other way round; only an admin may do both. Every route names one
permission; a test walks over all routes and holds the specification's tables against this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from edgefleet_contract.commands import Kind


class Permission(StrEnum):
    """What a route needs."""

    READ = "read"
    OPERATE = "operate"
    PUBLISH = "publish"
    ADMINISTER = "administer"


class Role(StrEnum):
    """What a user is."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    PUBLISHER = "publisher"
    ADMIN = "admin"


PERMISSIONS: Final[Mapping[Role, frozenset[Permission]]] = MappingProxyType(
    {
        Role.VIEWER: frozenset({Permission.READ}),
        Role.OPERATOR: frozenset({Permission.READ, Permission.OPERATE}),
        Role.PUBLISHER: frozenset({Permission.READ, Permission.PUBLISH}),
        Role.ADMIN: frozenset(Permission),
    }
)
MEANING: Final[Mapping[Permission, str]] = MappingProxyType(
    {
        Permission.READ: "see devices, bundles, rollouts, trust, the audit trail",
        Permission.OPERATE: "rollouts, claims, commands to devices",
        Permission.PUBLISH: "upload bundles; releases, revocations, policies (signed elsewhere)",
        Permission.ADMINISTER: "users, roots and directors, taking devices out, `predict`",
    }
)
COMMANDS: Final[Mapping[Kind, Permission]] = MappingProxyType(
    {
        Kind.PING: Permission.OPERATE,
        Kind.SNAPSHOT: Permission.OPERATE,
        Kind.RESTART_WORKER: Permission.OPERATE,
        Kind.SELF_TEST: Permission.OPERATE,
        Kind.LOGS: Permission.OPERATE,
        Kind.PREDICT: Permission.ADMINISTER,
    }
)
"""What sending each kind of command needs, and so does seeing its answer."""


def may(role: Role, permission: Permission) -> bool:
    """Whether a role has a permission."""
    return permission in PERMISSIONS[role]


def roles_with(permission: Permission) -> tuple[Role, ...]:
    """The roles that have a permission, weakest first."""
    return tuple(role for role in Role if may(role, permission))


def table() -> str:
    """The table of the specification (Markdown)."""
    lines = ["| may | " + " | ".join(Role) + " | what that is |", "|---" * (len(Role) + 2) + "|"]
    for permission in Permission:
        marks = ("yes" if may(role, permission) else "" for role in Role)
        lines.append(f"| `{permission}` | " + " | ".join(marks) + f" | {MEANING[permission]} |")
    return "\n".join(lines)
