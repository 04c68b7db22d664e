from __future__ import annotations

from dataclasses import replace

import pytest

from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import Malformed
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.trust import (
    Claim,
    FleetPolicy,
    RevokedPolicy,
    TrustFloors,
    parse_claim,
    parse_policy,
    render_policy,
)

CLAIM = Claim("demo", "s" * 32, Digest("a" * 64))


def test_a_claim_is_one_line_that_reads_back() -> None:
    assert parse_claim(CLAIM.render() + "\n") == CLAIM


def test_a_fleet_name_with_dots_reads_back() -> None:
    claim = replace(CLAIM, fleet="site.north.1")
    assert parse_claim(claim.render()) == claim


@pytest.mark.parametrize(
    "text", ["", "efc1", "efc2.demo.s.d", "efc1.demo.short." + "a" * 64, "x" * 999]
)
def test_what_is_no_claim_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_claim(text)
    assert not text or text not in caught.value.message


def test_policies_read_back() -> None:
    fleet = FleetPolicy("demo", "CA", (PrivateKey.generate_ed25519().public.pem,))
    revoked = RevokedPolicy((Digest("b" * 64),), {"digits": 3}, go_back=False)
    assert parse_policy(FleetPolicy, render_policy(fleet), what="x") == fleet
    assert parse_policy(RevokedPolicy, render_policy(revoked), what="x") == revoked


@pytest.mark.parametrize(
    "raw",
    [
        b'{"digests":[],"floors":{},"go_back":true,"schema":"edgefleet.policy.revoked/2"}',
        b'{"digests":["xyz"],"floors":{},"go_back":true,"schema":"edgefleet.policy.revoked/1"}',
        b'{ "digests":[]}',
    ],
)
def test_a_policy_that_is_not_understood_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        parse_policy(RevokedPolicy, raw, what="policy/revoked.json")


def test_a_revocation_names_what_it_forbids() -> None:
    revoked = RevokedPolicy((Digest("b" * 64),), {"digits": 3})
    assert "revoked" in revoked.forbids("digits", 9, Digest("b" * 64))
    assert "floor 3" in revoked.forbids("digits", 2, Digest("c" * 64))
    assert revoked.forbids("digits", 3, Digest("c" * 64)) == ""
    assert revoked.forbids("other", 1, Digest("c" * 64)) == ""


def test_a_lower_version_of_any_role_is_below_the_floors() -> None:
    floors = TrustFloors(2, 5, 4, 3)
    assert floors.below(floors) == ""
    assert TrustFloors(3, 6, 5, 4).below(floors) == ""
    for role in ("root", "timestamp", "snapshot", "targets"):
        lower = replace(floors, **{role: getattr(floors, role) - 1})
        assert lower.below(floors) == role


OLD = TrustFloors(1, 2**40, 2**40, 2**40, online=("taken",), publishers=("p",))


def test_floors_fall_with_the_keys_that_could_raise_them_and_with_no_other() -> None:
    """A thief drove the numbers up; two root keys drop the key that he had."""
    rotated = TrustFloors(2, 7, 7, 2**40, online=("new",), publishers=("p", "q"))
    assert rotated.below(OLD) == ""
    assert replace(rotated, targets=9).below(OLD) == "targets"
    assert replace(rotated, publishers=("q",), targets=9).below(OLD) == ""
    assert replace(rotated, online=("taken", "new")).below(OLD) == "timestamp"
    assert replace(rotated, root=1).below(OLD) == "timestamp"
    assert OLD.below(rotated) == "root"


def test_what_a_device_saw_is_the_same_in_whatever_order_it_is_told() -> None:
    rotated = TrustFloors(2, 7, 7, 2**41, online=("new",), publishers=("p",))
    assert OLD.merged(rotated) == rotated.merged(OLD) == rotated
    assert OLD.merged(replace(OLD, timestamp=1)) == OLD
    assert TrustFloors().merged(OLD) == OLD.merged(TrustFloors()) == OLD
