"""Hostile orders: forged, changed, replayed, misdirected, out of their time."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace

from edgefleet_agent import policy
from edgefleet_agent.device import Device, Installed
from edgefleet_contract import bundle as b
from edgefleet_contract import canonical, codec, messages
from edgefleet_contract.envelope import Envelope, Signature, pae, render_envelope, seal
from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_contract.messages import ORDER_TYPE
from edgefleet_contract.orders import MAX_ORDER_LIFE_S, Order
from edgefleet_contract.reasons import Reason
from tests.contract.makers import order_of, target_of
from tests.hostile.attempts import Attempt, hostile, said_no
from tests.hostile.ground import Ground
from tests.hostile.signatures import flipped

DAY = 86_400
CLOCKS = {"1970": 0, "2020": 1_577_836_800, "2026": 1_795_392_000, "2100": 4_102_444_800}


@hostile("forged_orders", Reason.MALFORMED, Reason.BAD_SIGNATURE, Reason.UNKNOWN_KEY)
def forged_orders(ground: Ground) -> Iterator[Attempt]:
    """Envelopes that no director signed as they are."""
    stranger = PrivateKey.generate_ed25519()
    payload = canonical.render(codec.encode(ground.order))
    sealed = seal(payload, payload_type=ORDER_TYPE, keys=(ground.director,))
    (mine,) = sealed.signatures
    (theirs,) = seal(payload, payload_type=ORDER_TYPE, keys=(stranger,)).signatures
    other = canonical.render(codec.encode(replace(ground.order, seq=8)))
    by_publisher = Signature(
        base64.b64encode(ground.publisher.sign(pae(ORDER_TYPE, payload))).decode(),
        ground.publisher.public.id,
    )
    bare = Signature(base64.b64encode(ground.director.sign(payload)).decode(), mine.keyid)

    def signed(*signatures: Signature) -> bytes:
        return render_envelope(replace(sealed, signatures=signatures))

    raw = json.loads(ground.sealed)
    for name, envelope in {
        "by a stranger": signed(theirs),
        "by a stranger in the director's name": signed(Signature(theirs.sig, mine.keyid)),
        "by the director in a stranger's name": signed(Signature(mine.sig, theirs.keyid)),
        "by nobody": signed(Signature(mine.sig)),
        "by the publisher": signed(by_publisher),
        "stripped": signed(),
        "nine times": signed(*[mine] * 9),
        "over the body alone": signed(bare),
        "of another body": render_envelope(
            replace(sealed, payload=base64.b64encode(other).decode())
        ),
        "of another type": render_envelope(replace(sealed, payloadType="text/plain")),
        "a bundle's statement": render_envelope(
            Envelope(sealed.payload, "application/vnd.in-toto+json", sealed.signatures)
        ),
        "empty signature": signed(Signature("", mine.keyid)),
        "a long signature": signed(Signature(mine.sig + "AAAA", mine.keyid)),
        "a body of nothing": render_envelope(replace(sealed, payload="")),
        "loose base64": json.dumps({**raw, "payload": raw["payload"] + "\n"}).encode(),
        "a field more": json.dumps({**raw, "more": 1}).encode(),
        "a key id with codes": signed(Signature(mine.sig, "\x1b[2J\n")),
        "signatures as an object": json.dumps({**raw, "signatures": {}}).encode(),
        "huge": b" " * canonical.MAX_BYTES + ground.sealed,
        "nothing": b"",
    }.items():
        yield Attempt(name, lambda raw=envelope: messages.open_order(raw, ground.director_ring))
    yield Attempt("no director", lambda: messages.open_order(ground.sealed, KeyRing()))
    yield Attempt("a bundle's ring", lambda: messages.open_order(ground.sealed, ground.ring))


_ANY = (Reason.MALFORMED, Reason.BAD_SIGNATURE, Reason.UNKNOWN_KEY)


@hostile("order_mutants", *_ANY, sample=800)
def order_mutants(ground: Ground) -> Iterator[Attempt]:
    """Every single bit of an order flipped."""
    raw = ground.sealed
    for bit in range(len(raw) * 8):
        mutant = flipped(raw, bit // 8, 1 << bit % 8)
        yield Attempt(
            f"bit {bit}",
            lambda m=mutant: messages.open_order(m, ground.director_ring),
            ground.order,
        )


@hostile("order_cuts", *_ANY, sample=200)
def order_cuts(ground: Ground) -> Iterator[Attempt]:
    """An order cut at every offset; its body cut at every offset and signed anew."""
    raw = ground.sealed
    payload = canonical.render(codec.encode(ground.order))
    for length in range(len(raw)):
        cut = raw[:length]
        yield Attempt(
            f"{length} bytes",
            lambda cut=cut: messages.open_order(cut, ground.director_ring),
        )
    for length in range(len(payload)):
        sealed = render_envelope(
            seal(payload[:length], payload_type=ORDER_TYPE, keys=(ground.director,))
        )
        yield Attempt(
            f"{length} bytes of the body",
            lambda raw=sealed: messages.open_order(raw, ground.director_ring),
        )


@hostile("order_bodies", Reason.MALFORMED)
def order_bodies(ground: Ground) -> Iterator[Attempt]:
    """Well signed, and not an order: fields missing, of another type, beyond their bounds."""
    value = codec.encode(ground.order)
    assert isinstance(value, dict)
    targets = value["targets"]
    assert isinstance(targets, list)
    assert isinstance(targets[0], dict)
    target: dict[str, canonical.Json] = targets[0]
    bodies: dict[str, canonical.Json] = {
        f"without {name}": {k: v for k, v in value.items() if k != name}
        for name in ("fleet", "device", "seq", "issued", "expires", "rollout", "targets", "schema")
    }
    bodies |= {
        f"{name} as {word}": {**value, name: wrong}
        for name in value
        for word, wrong in (("a list", [1]), ("an object", {"a": 1}), ("truth", True))
        if (name, word) not in (("allow_downgrade", "truth"), ("policy", "an object"))
    }
    bodies |= {
        "two targets for one slot": {**value, "targets": [target, target]},
        "another schema": {**value, "schema": "edgefleet.order/2"},
        "a list": [value],
    }
    for name, wrong in {
        "slot": ("../digits", "", "A", "a" * 65, "a\0"),
        "model": ("../digits", "", "-x"),
        "bundle_sha256": ("", "a" * 63, "A" * 64),
        "signature_sha256": ("", "a" * 63, "A" * 64),
        "version": (0, -1, "2"),
        "max_bytes": (-1, "2"),
    }.items():
        for item in wrong:
            bodies[f"target with {name} {str(item)[:20]!r}"] = {
                **value,
                "targets": [{**target, name: item}],
            }
    for name, body in bodies.items():
        sealed = render_envelope(
            seal(canonical.render(body), payload_type=ORDER_TYPE, keys=(ground.director,))
        )
        yield Attempt(name, lambda raw=sealed: messages.open_order(raw, ground.director_ring))


@hostile(
    "untimely_orders",
    Reason.WRONG_DEVICE,
    Reason.STALE_ORDER,
    Reason.ORDER_EXPIRED,
    Reason.DOWNGRADE,
    Reason.QUARANTINED,
)
def untimely_orders(ground: Ground) -> Iterator[Attempt]:
    """Well signed, and not to be followed: replayed, misdirected, out of date, going back."""
    now = CLOCKS["2026"]
    runs = Installed(replace(target_of(ground.good), version=5), "onnx", "onnxruntime")
    bad = b.Digest("9" * 64)
    device = Device(seq=10, time_floor=now - DAY, slots={"digits": runs}, quarantined=(bad,))
    newer = replace(target_of(ground.good), version=6)

    def judged(order: Order, clock: int = now) -> object:
        sealed = messages.seal_order(order, ground.director)
        opened = messages.open_order(sealed, ground.director_ring)
        return said_no(policy.judge(opened, device, fleet="demo", name="pi-1", clock=clock))

    def timely(**more: object) -> Order:
        fields: dict[str, object] = {"seq": 11, "issued": now, "expires": now + DAY, **more}
        return order_of(fields.pop("target", newer), **fields)

    assert judged(timely()) == policy.Accept()
    yield Attempt("replayed", lambda: judged(timely(seq=10)), same=policy.Known())
    for seq in (9, 0, -1, -(2**52)):
        yield Attempt(f"number {seq}", lambda seq=seq: judged(timely(seq=seq)))
    for name in ("pi-2", "pi-1 ", "PI-1", "", "+", "pi-1/x"):
        yield Attempt(f"for {name!r}", lambda name=name: judged(timely(device=name)))
    for name in ("other", "", "demo2"):
        yield Attempt(f"of fleet {name!r}", lambda name=name: judged(timely(fleet=name)))
    for year, clock in CLOCKS.items():
        old = timely(issued=now - 3 * DAY, expires=now - 2 * DAY)
        yield Attempt(f"expired, clock {year}", lambda o=old, c=clock: judged(o, c))
        long = timely(expires=now + MAX_ORDER_LIFE_S + 1)
        yield Attempt(f"too long a life, clock {year}", lambda o=long, c=clock: judged(o, c))
        ever = timely(issued=-(2**52), expires=2**52)
        yield Attempt(f"for ever, clock {year}", lambda o=ever, c=clock: judged(o, c))
    yield Attempt("clock 2100", lambda: judged(timely(), CLOCKS["2100"]))
    older = replace(newer, version=4)
    yield Attempt("an older version", lambda: judged(timely(target=older)))
    failed = replace(newer, bundle_sha256=bad)
    yield Attempt("what failed here", lambda: judged(timely(target=failed)))
