"""Tokens: what is kept of them, what recognises them, and the file that the front watches."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from edgefleet_agent.cli import main
from edgefleet_agent.serving.access import Tally, parse_bearer
from edgefleet_agent.serving.token_file import TokenFile, changing, load
from edgefleet_agent.serving.tokens import (
    MAX_TOKENS,
    Token,
    TokenTable,
    make_token,
    parse,
    parse_span,
    render,
)
from edgefleet_contract.errors import Malformed, OperatorError


def table(*names: str) -> tuple[TokenTable, dict[str, str]]:
    """A table of new tokens, and their secrets."""
    made = {name: make_token(name, now=1000) for name in names}
    return TokenTable(tuple(token for token, _ in made.values())), {
        name: secret for name, (_, secret) in made.items()
    }


def test_a_secret_is_found_and_is_nowhere_in_what_is_kept() -> None:
    held, secrets = table("a", "b")
    for name, secret in secrets.items():
        assert held.find(secret.encode()).name == name
        assert secret not in repr(held) + render(held).decode()
        assert len(secret) >= 43
    assert held.find(b"") is held.find(b"x" * 10_000) is None
    assert len(set(secrets.values())) == 2


def test_what_is_written_is_read() -> None:
    token, _ = make_token("a", now=1000, lasts_s=60, models=("m",))
    held = TokenTable((token,))
    assert parse(render(held), what="x") == held
    assert parse(render(TokenTable()), what="x") == TokenTable()


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "other/1"},
        {"tokens": [{"name": "a", "sha256": "A" * 64, "created": 1}]},
        {"tokens": [{"name": "a b", "sha256": "0" * 64, "created": 1}]},
        {"tokens": [{"name": "a", "sha256": "0" * 64, "created": 1}] * 2},
        {"more": 1},
    ],
)
def test_a_spoilt_table_is_refused(change: dict[str, object]) -> None:
    value = {"schema": "edgefleet.tokens/1", "tokens": []} | change
    with pytest.raises(Malformed):
        parse(json.dumps(value).encode(), what="x")


def test_a_token_ends_also_where_the_clock_stands_at_1970() -> None:
    old, _ = make_token("old", now=1_700_000_000, lasts_s=60)
    new, _ = make_token("new", now=1_800_000_000)
    held = TokenTable((old, new))
    assert old.is_expired(held.now(0.0))
    assert not new.is_expired(held.now(4e9))
    assert not old.is_expired(1_700_000_059)
    assert old.is_expired(1_700_000_060)


def test_names_are_unique_and_few_enough() -> None:
    held, _ = table("a")
    with pytest.raises(OperatorError, match="already"):
        held.add(make_token("a", now=0)[0])
    with pytest.raises(OperatorError, match="no token"):
        held.revoke("b")
    full = TokenTable(tuple(Token(f"t{i}", "0" * 64, 0) for i in range(MAX_TOKENS)))
    with pytest.raises(OperatorError, match=str(MAX_TOKENS)):
        full.add(make_token("a", now=0)[0])
    for name in ("", "A", "a b", "-a", "a" * 64, 'a"'):
        with pytest.raises(OperatorError, match="no name"):
            make_token(name, now=0)


def test_spans_of_time() -> None:
    assert [parse_span(text) for text in ("30m", "12h", "90d", "2w", "5s")] == [
        *(1800, 43200, 90 * 86400, 14 * 86400, 5)
    ]
    for text in ("", "0d", "90", "d", "-1d", "1y", "1d ", "9999999d"):
        with pytest.raises(OperatorError, match="span of time"):
            parse_span(text)


def test_one_header_with_one_secret_is_read_and_nothing_else() -> None:
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    held, secrets = table("a")
    good = b"Bearer " + secrets["a"].encode()
    parts = st.sampled_from([good, b"Bearer", b"bearer ", b" ", b"\t", b"=", b",", b"a", b"\xff"])
    value = st.one_of(st.binary(max_size=300), st.lists(parts, max_size=5).map(b"".join))

    @hypothesis.given(st.lists(value, max_size=3))
    @hypothesis.example([good])
    @hypothesis.example([good, good])
    @hypothesis.example([good + b" "])
    def check(values: list[bytes]) -> None:
        found = parse_bearer(values)
        if found is None:
            return
        assert len(values) == 1
        scheme, _, rest = values[0].partition(b" ")
        assert scheme.lower() == b"bearer"
        assert rest.strip(b" ") == found
        assert (held.find(found) is not None) == (found == good[7:])

    check()
    assert parse_bearer([good]) == good[7:]


def test_a_change_of_the_file_is_seen_at_once(tmp_path: Path) -> None:
    file = tmp_path / "serving" / "tokens.json"
    watched = TokenFile(file)
    assert watched.table == TokenTable()
    for name in ("a", "b", "c"):
        with changing(file) as held:
            held[0] = held[0].add(make_token(name, now=0)[0])
        assert watched.table.tokens[-1].name == name
    with changing(file) as held:
        held[0] = held[0].revoke("b")
    assert [token.name for token in watched.table.tokens] == ["a", "c"]
    assert watched.table is watched.table
    file.write_text("spoilt")
    assert watched.table == TokenTable()
    file.unlink()
    assert watched.table == TokenTable()


def test_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "serving" / "tokens.json"
    with changing(file):
        pass
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_writes_belongs_to_the_agent(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 1234, 1235)
    with changing(state / "serving" / "tokens.json") as held:
        held[0] = held[0].add(make_token("a", now=0)[0])
    for path in (state / "serving", state / "serving" / "tokens.json"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)


def test_two_that_change_it_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"

    def add(name: str) -> None:
        with changing(file) as held:
            held[0] = held[0].add(make_token(name, now=0)[0])

    threads = [threading.Thread(target=add, args=(f"t{i}",)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(load(file).tokens) == 16


def test_names_of_certificates_cannot_fill_the_memory() -> None:
    tally = Tally()
    for i in range(2000):
        tally.answer(f"certificate {i}", 200)
    assert len(tally.answered) <= 513
    assert sum(tally.answered.values()) == 2000


def test_the_command_line_makes_lists_and_revokes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        code = main(["token", *words, "--state", str(tmp_path)])
        said = capsys.readouterr()
        return code, said.out, said.err

    (tmp_path / "agent.toml").write_text('[serving.lan]\nlisten = ["0.0.0.0:8501"]\n')
    code, secret, err = run("add", "phone", "--models", "digits,faces", "--expires", "90d")
    assert (code, err) == (0, "")
    held = load(tmp_path / "serving" / "tokens.json")
    assert held.find(secret.strip().encode()).models == ("digits", "faces")
    assert run("add", "phone")[0] == 1
    (row,) = json.loads(run("list", "--json")[1])
    assert (row["name"], row["models"]) == ("phone", ["digits", "faces"])
    assert "phone" in run("list")[1]
    assert run("revoke", "phone") == (0, "", "")
    assert run("revoke", "phone")[0] == 1
    assert run("list")[1] == ""
    (tmp_path / "agent.toml").write_text("")
    assert "takes no tokens yet" in run("add", "early")[2]
