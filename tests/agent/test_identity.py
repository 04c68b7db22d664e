"""Where the device's key comes from."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgefleet_agent import identity
from edgefleet_contract.keys import PrivateKey


def test_the_key_is_made_once_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    made = identity.device_key(tmp_path)
    path = tmp_path / "identity" / "device.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert identity.device_key(tmp_path).public == made.public


def test_a_key_that_systemd_gives_is_used_and_never_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, state = tmp_path / "credentials", tmp_path / "state"
    given.mkdir()
    key = PrivateKey.generate_p256()
    key.save(given / "device.key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(given))
    assert identity.device_key(state).public == key.public
    assert identity.key_path(state) == given / "device.key"
    assert list((state / "identity").iterdir()) == []


def test_other_credentials_leave_the_key_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "claim").write_text("efc1")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert identity.key_path(tmp_path, environ) == tmp_path / "identity" / "device.key"
    assert identity.credential("claim", environ) == tmp_path / "claim"
    assert identity.credential("claim", {}) is None


@pytest.mark.parametrize(("given", "said"), [(True, "efc1"), (False, "there is no claim")])
def test_the_claim_may_be_a_credential(tmp_path: Path, given: bool, said: str) -> None:
    if given:
        (tmp_path / "claim").write_text("no claim at all")
    command = [sys.executable, "-m", "edgefleet_agent", "enrol", "--fleet", "http://127.0.0.1:1"]
    done = subprocess.run(
        [*command, "--state", str(tmp_path / "state"), "--device", "pi-1"],
        env={**os.environ, "CREDENTIALS_DIRECTORY": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert ("there is no claim" in done.stderr) is not given, done.stderr
    assert said in done.stderr
