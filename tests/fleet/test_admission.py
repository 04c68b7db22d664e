"""How a claim lets its holders in, decided without a clock or a data base."""

from __future__ import annotations

import pytest

from edgefleet_contract.errors import Malformed
from edgefleet_fleet.admission import Listed, check_list, must_wait, parse_list
from edgefleet_fleet.errors import Denied
from edgefleet_fleet.records import Claim

OTHER = "cd" * 32


def test_a_list_reads_names_keys_and_remarks() -> None:
    text = f"# the first batch\n\npi-1\n  pi-2\t{OTHER}  # in the lab\n"
    assert parse_list(text, what="list") == (Listed("pi-1"), Listed("pi-2", OTHER))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pi-1\nPI-2", "list, line 2: 'PI-2' cannot be a device's name"),
        ("pi-1 abcd", "list, line 1: pi-1: 'abcd' is no key id"),
        (f"pi-1 {OTHER} x", "list, line 1: 3 words"),
    ],
)
def test_a_list_that_is_none_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(Malformed) as refused:
        parse_list(text, what="list")
    assert refused.value.message == said


def test_a_name_that_stands_twice_is_refused() -> None:
    with pytest.raises(Malformed, match="pi-1 stands twice"):
        check_list((Listed("pi-1"), Listed("pi-1", OTHER)))


@pytest.mark.parametrize(
    ("listed", "approve", "entry", "outcome"),
    [
        (0, False, None, False),
        (0, True, None, True),
        (1, False, None, "refused"),
        (1, True, None, True),
        (1, False, Listed("pi-1"), False),
        (1, True, Listed("pi-1"), False),
        (1, True, Listed("pi-1", OTHER), False),
        (1, True, Listed("pi-1", "ab" * 32), "refused"),
    ],
)
def test_every_kind_of_claim_meets_every_kind_of_holder(
    listed: int, approve: bool, entry: Listed | None, outcome: bool | str
) -> None:
    found = Claim(1, 1, "me", 9, 1, "aa" * 32, False, approve, listed)  # type: ignore[arg-type]
    if outcome == "refused":
        with pytest.raises(Denied):
            must_wait(found, entry, device="pi-1", key_id=OTHER)
    else:
        assert must_wait(found, entry, device="pi-1", key_id=OTHER) is outcome
