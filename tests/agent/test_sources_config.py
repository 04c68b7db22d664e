"""`[[sources]]`: what is read, and what is refused with a word on what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgefleet_agent.config import load
from edgefleet_agent.sources.config import SinkConfig, SourceConfig, parse_sources
from edgefleet_contract.errors import Malformed, OperatorError
from tests.agent.sourcing import install_plugin

INBOX = '[[sources]]\nname = "inbox"\nkind = "folder"\nmodel = "digits"\n'
DOOR = '[[sources]]\nname = "door"\nkind = "camera"\nmodel = "people"\n'

ASKED = '[[sources]]\nname = "asked"\nkind = "mqtt"\nmodel = "m"\n'


def read(folder: Path, text: str) -> tuple[SourceConfig, ...]:
    (folder / "agent.toml").write_text(text)
    return load(None, folder).sources


def test_keys_of_every_source_and_options_of_a_kind_stand_in_one_table(tmp_path: Path) -> None:
    sink = 'sink = { kind = "mqtt", on = "change", deadband = 2, at_least_every_s = 60, queue = 5 }'
    (found,) = read(tmp_path, f'{DOOR}device = "film.avi"\nscale = 255\nevery_s = 0.5\n{sink}\n')
    expected = SinkConfig("mqtt", "change", 2.0, 60.0, {"queue": 5})
    assert found.sink == expected
    assert (found.every_s, found.queue) == (0.5, 1)
    assert found.options == {"device": "film.avi", "scale": 255}


def test_without_sources_nothing_changes_and_with_some_there_is_a_socket(tmp_path: Path) -> None:
    listen = '[serving]\nlisten = ["127.0.0.1:8501"]\n'
    (tmp_path / "agent.toml").write_text(listen)
    assert load(None, tmp_path).serving.listen == ("127.0.0.1:8501",)
    (tmp_path / "agent.toml").write_text(listen + INBOX)
    own = f"unix:{tmp_path}/sources.sock"
    assert load(None, tmp_path).serving.listen == ("127.0.0.1:8501", own)
    (tmp_path / "agent.toml").write_text(INBOX)
    assert load(None, tmp_path).serving.listen == (f"unix:{tmp_path}/serve.sock",)


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        (
            INBOX + 'pth = "x"',
            "sources[0]: unknown field 'pth'",
            "every_s, kind, model, name, path",
        ),
        (INBOX + "path = 5", "sources[0].path: expected a string, found int", ""),
        (INBOX + INBOX, "two sources are called 'inbox'", ""),
        (INBOX.replace("inbox", "In box"), "name is 'In box'", "lower-case letters"),
        (INBOX.replace("folder", "lidar"), "there is no kind 'lidar'", "built in: camera, folder"),
        (INBOX.replace('model = "digits"', ""), "field 'model' is missing", ""),
        (INBOX + "every_s = -1", "every_s -1", "every_s is 0 or more"),
        (INBOX + 'sink = "mqtt"', "sources[0].sink: expected a table", '{ kind = "mqtt" }'),
        (INBOX + 'sink = { kind = "kafka" }', "there is no kind 'kafka'", "built in: folder, log"),
        (INBOX + 'sink = { kind = "log", on = "never" }', "on is 'never'", "every or change"),
        (INBOX + 'sink = { kind = "log", retain = true }', "unknown field 'retain'", "deadband"),
        (INBOX + 'sink = { kind = "mqtt", queue = 0 }', "queue 0", "1 or more"),
        (INBOX + 'sink = { kind = "mqtt", deadband = -1 }', "is below 0", ""),
        (DOOR, "it has no sink", 'sink = { kind = "mqtt" }'),
        (
            ASKED + 'sink = { kind = "log" }',
            "answers whoever asks",
            "leave out its sink",
        ),
        (
            ASKED + ASKED.replace("asked", "again"),
            "two sources of kind mqtt are for 'm'",
            "",
        ),
        ("sources = 5", "expected tables", ""),
        ("sources = [5]", "sources[0]: expected a table", ""),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(
    tmp_path: Path, text: str, says: str, hint: str
) -> None:
    with pytest.raises(OperatorError) as refused:
        read(tmp_path, text)
    assert says in refused.value.message
    assert hint in refused.value.hint


def test_an_installed_plugin_is_a_kind_whose_options_are_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {"name": "a", "kind": "trouble", "model": "m", "sink": {"kind": "log"}, "any": [1]}
    with pytest.raises(Malformed, match="no kind 'trouble'"):
        parse_sources([table], what="test")
    install_plugin(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (found,) = parse_sources([table], what="test")
    assert found.options == {"any": [1]}
    assert "edgefleet_trouble" not in sys.modules  # none of its code ran
