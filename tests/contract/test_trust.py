from __future__ import annotations

from dataclasses import replace

import pytest

from edgefleet_contract.bundle import Digest, sha256
from edgefleet_contract.errors import Malformed, Unverified
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.trust import Claim, Trust, open_trust, parse_claim, render_trust

PEM = PrivateKey.generate_ed25519().public.pem
TRUST = Trust("demo", "CA", (PEM,), (PrivateKey.generate_p256().public.pem,))
RAW = render_trust(TRUST)
CLAIM = Claim("demo", "s" * 32, sha256(RAW))


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


def test_the_trust_document_is_taken_from_anywhere_if_the_claim_names_it() -> None:
    assert open_trust(RAW, CLAIM) == TRUST


def test_another_trust_document_is_refused() -> None:
    other = render_trust(replace(TRUST, publishers=(PEM,)))
    with pytest.raises(Unverified):
        open_trust(other, CLAIM)
    with pytest.raises(Unverified):
        open_trust(RAW, replace(CLAIM, fleet="other"))
    with pytest.raises(Unverified):
        open_trust(RAW, replace(CLAIM, trust_sha256=Digest("0" * 64)))
