"""`policy.toml`: the wire's words, checked before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefleet_contract import codec
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.order_policy import Canary, Conditions, Policy, Shadow, Window
from edgefleet_fleet.policy_file import read_policy


def read(folder: Path, text: str, **flags: int | bool | None) -> Policy:
    path = folder / "policy.toml"
    path.write_text(text)
    return codec.decode(Policy, read_policy(path, **flags), what="policy")


def test_every_word_of_the_file_arrives_and_flags_win(tmp_path: Path) -> None:
    text = """
        probation_s = 60
        needs_link_s = 30
        windows = [{start = "02:00", minutes = 180, zone = "Europe/Berlin", days = ["sun"]}]
        conditions = {mains = true, max_celsius = 75}
        shadow = {seconds = 300, min_agreement_percent = 95}
        canary = {seconds = 600, share_percent = 5, min_requests = 100, max_p95_percent = 150}
    """
    assert read(tmp_path, text, probation_s=9, retry_quarantined=None) == Policy(
        probation_s=9,
        needs_link_s=30,
        windows=(Window("02:00", 180, "Europe/Berlin", ("sun",)),),
        conditions=Conditions(mains=True, max_celsius=75),
        shadow=Shadow(300, min_agreement_percent=95),
        canary=Canary(600, share_percent=5, min_requests=100, max_p95_percent=150),
    )


def test_no_file_and_no_flags_are_the_defaults() -> None:
    assert codec.decode(Policy, read_policy(None), what="policy") == Policy()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("probation = 60", "unknown field 'probation'"),
        ("probation_s = -1", "negative"),
        ('windows = [{start = "2am", minutes = 60}]', "is not HH:MM"),
        ("canary = {seconds = 0}", "canary.seconds is 0"),
        ("canary = {seconds = 9, share_percent = 0}", "canary.share_percent is 0"),
        ("canary = {seconds = 9, share_percent = 101}", "canary.share_percent is 101"),
        ("canary = {seconds = 9, max_failures = -1}", "canary.max_failures is -1"),
        ("canary = {seconds = 9, share = 5}", "unknown field 'share'"),
        ("max_bytes_per_s = 1023", "max_bytes_per_s is 1023"),
        ("probation_s = ", "is not TOML"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(OperatorError, match=found):
        read(tmp_path, text)
