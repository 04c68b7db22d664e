from __future__ import annotations

import pytest

from edgefleet_contract import canonical, codec, messages
from edgefleet_contract.bundle import Digest
from edgefleet_contract.envelope import open_envelope, render_envelope, seal
from edgefleet_contract.errors import PeerError, Unverified
from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_contract.orders import Order, Target
from edgefleet_contract.reasons import Reason

TYPE = "application/vnd.test+json"


def test_an_empty_ring_opens_nothing() -> None:
    key = PrivateKey.generate_ed25519()
    raw = render_envelope(seal(b"{}", payload_type=TYPE, keys=(key,)))
    with pytest.raises(Unverified) as caught:
        open_envelope(raw, payload_type=TYPE, ring=KeyRing(), what="x")
    assert caught.value.reason is Reason.UNKNOWN_KEY


def test_a_threshold_counts_distinct_keys() -> None:
    one, two = PrivateKey.generate_ed25519(), PrivateKey.generate_p256()
    ring = KeyRing([one.public, two.public])
    twice = render_envelope(seal(b"{}", payload_type=TYPE, keys=(one, one)))
    both = render_envelope(seal(b"{}", payload_type=TYPE, keys=(one, two)))
    with pytest.raises(Unverified):
        open_envelope(twice, payload_type=TYPE, ring=ring, what="x", threshold=2)
    opened = open_envelope(both, payload_type=TYPE, ring=ring, what="x", threshold=2)
    assert opened.signers == {one.public.id, two.public.id}


def test_no_single_bit_of_an_order_can_be_flipped() -> None:
    """Every mutant is refused, or still says exactly the same (bits outside of what is signed)."""
    director = PrivateKey.generate_ed25519()
    ring = KeyRing([director.public])
    target = Target("digits", "digits", 1, Digest("a" * 64), Digest("b" * 64), 10)
    order = Order("demo", "pi-1", 7, 1_000, 2_000, "r-1", (target,))
    raw = messages.seal_order(order, director)
    accepted = 0
    for position in range(len(raw) * 8):
        mutant = bytearray(raw)
        mutant[position // 8] ^= 1 << (position % 8)
        try:
            opened = messages.open_order(bytes(mutant), ring)
        except PeerError:
            continue
        accepted += 1
        assert opened == order
    assert accepted == 0


def test_a_truncated_order_is_refused_at_every_length() -> None:
    director = PrivateKey.generate_ed25519()
    order = Order("demo", "pi-1", 7, 1_000, 2_000, "r-1", ())
    raw = messages.seal_order(order, director)
    for length in range(len(raw)):
        with pytest.raises(PeerError):
            messages.open_order(raw[:length], KeyRing([director.public]))


def test_a_later_version_may_add_fields_to_an_order() -> None:
    director = PrivateKey.generate_ed25519()
    order = Order("demo", "pi-1", 7, 1_000, 2_000, "r-1", ())
    value = codec.encode(order)
    assert isinstance(value, dict)
    payload = canonical.render({**value, "zzz_new": 1})
    raw = render_envelope(seal(payload, payload_type=messages.ORDER_TYPE, keys=(director,)))
    assert messages.open_order(raw, KeyRing([director.public])) == order
