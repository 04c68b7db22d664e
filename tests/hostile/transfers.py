"""Hostile servers: what a shelf, or anybody between, may answer for one file of a good bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edgefleet_contract import bundle as b
from edgefleet_contract.reasons import Reason
from tests.hostile.attempts import TRANSIENT, Attempt, hostile
from tests.hostile.ground import Ground
from tests.hostile.liars import LIES, Lie, one_byte_more


@hostile("transfers", TRANSIENT, sample=40)
def transfers(ground: Ground) -> Iterator[Attempt]:
    """Endless, slow, short, long, packed, redirected, other bytes: for each kind of file."""
    manifest = b.parse_manifest(ground.manifest)
    model = manifest.file(manifest.variants[0].model)

    def told(victim: b.Digest, lie: Lie) -> Callable[[], object]:
        def go() -> object:
            ground.liar.tell(victim, lie)
            try:
                return ground.bring()
            finally:
                ground.liar.tell(b.Digest(""), one_byte)

        return go

    one_byte = Lie(one_byte_more, frozenset())
    for lie in LIES:
        for what, victim in (
            ("bundle.json", b.sha256(ground.manifest)),
            ("model.sig", b.sha256(ground.signature)),
            ("a model", model.sha256),
            ("its chunk list", model.chunk_list_sha256),
        ):
            yield Attempt(
                f"{lie.name}: {what}",
                told(victim, lie),
                trace=ground.on_disk,
                expected=lie.refused,
            )


@hostile("mutated_files", Reason.DIGEST_MISMATCH, sample=80)
def mutated_files(ground: Ground) -> Iterator[Attempt]:
    """A model or its golden outputs with a byte changed, cut or added, under the signed digest."""
    manifest = b.parse_manifest(ground.manifest)
    for file in manifest.files:
        raw = ground.blobs[file.sha256]
        for position in range(0, len(raw), max(1, len(raw) // 120)):
            mutant = bytearray(raw)
            mutant[position] ^= 0x10
            yield Attempt(
                f"{file.path}: byte {position}",
                lambda d=file.sha256, m=bytes(mutant): ground.bring(blobs={d: m}),
                trace=ground.on_disk,
            )
            cut = raw[:position]
            yield Attempt(
                f"{file.path}: {position} bytes",
                lambda d=file.sha256, m=cut: ground.bring(blobs={d: m}),
                trace=ground.on_disk,
                expected=frozenset({TRANSIENT, Reason.DIGEST_MISMATCH}),
            )
        table = ground.blobs[file.chunk_list_sha256]
        for name, other in {
            "longer": table + table,
            "empty": b"",
            "of other bytes": bytes(len(table)),
        }.items():
            yield Attempt(
                f"{file.path}: chunk list {name}",
                lambda d=file.chunk_list_sha256, m=other: ground.bring(blobs={d: m}),
                trace=ground.on_disk,
                expected=frozenset({Reason.DIGEST_MISMATCH, Reason.TOO_LARGE}),
            )
