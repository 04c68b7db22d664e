"""The fuzzer's targets, without the fuzzer: every seed, and a few thousand mutants of them."""

from __future__ import annotations

import random

import pytest

from edgefleet_contract.errors import PeerError
from tests.fuzz import __main__ as program
from tests.fuzz import targets


def test_the_program_runs_every_target() -> None:
    assert tuple(targets.TARGETS) == program.NAMES


@pytest.mark.parametrize("name", targets.TARGETS)
def test_a_target_accepts_a_good_seed_and_refuses_the_rest_in_our_words(name: str) -> None:
    accepted = 0
    for raw in targets.seeds(name):
        try:
            targets.TARGETS[name](raw)
        except PeerError:
            continue
        accepted += 1
    assert accepted, "a target that refuses everything finds nothing"


@pytest.mark.parametrize("name", targets.TARGETS)
def test_mutants_of_the_seeds_are_refused_in_our_words(name: str) -> None:
    chance = random.Random(7)
    seeds = [raw for raw in targets.seeds(name) if 0 < len(raw) < 20_000]
    for _ in range(300 if name == "metadata" else 1_500):
        raw = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(raw))
            match chance.randrange(4):
                case 0:
                    raw[at] ^= 1 << chance.randrange(8)
                case 1:
                    del raw[at : at + chance.randint(1, 9)]
                case 2:
                    raw[at:at] = chance.choice(
                        [b"[", b'"', b"\\u", b"9" * 20, b"\x00", b"-", b"{}"]
                    )
                case 3:
                    raw[at : at + 8] = chance.choice(seeds)[at : at + 8]
            if not raw:
                break
        targets.attempt(name, bytes(raw))


def test_a_fault_is_not_taken_for_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(raw: bytes) -> None:
        raise KeyError(raw)

    monkeypatch.setitem(targets.TARGETS, "order", faulty)
    with pytest.raises(KeyError):
        targets.attempt("order", b"x")
