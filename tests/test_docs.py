"""The docs say what is so: diagrams, reasons and commands are held against the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgefleet_agent import install
from edgefleet_agent.install_events import Booted, KeptDying, OrderRejected, ServeFailed, Withdrawn
from edgefleet_contract.reasons import Reason, explain

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("systemd/*.md")])
SPEC_IDS = re.compile(r"\[((?:bundle|wire|trust|api|recipe|fleet-api|apply)-[0-9.]+)\]")


def test_the_install_diagram_is_the_table() -> None:
    anywhere = (Booted, KeptDying, OrderRejected, ServeFailed, Withdrawn)
    page = (ROOT / "docs/design/install.md").read_text()
    assert install.diagram(without=anywhere) in page.replace("```mermaid\n", "").replace("```", "")


def test_every_reason_is_in_the_specification() -> None:
    text = (ROOT / "docs/spec/wire.md").read_text()
    table = "\n".join(["| word | meaning |", "|---|---|"])
    table += "".join(f"\n| `{reason}` | {explain(reason)} |" for reason in Reason)
    assert table in text, f"put this into docs/spec/wire.md:\n{table}"


def test_every_sentence_that_is_cited_exists() -> None:
    defined = [
        match
        for page in ROOT.glob("docs/spec/*.md")
        for match in re.findall(r"^- \[([a-z-]+-[0-9.]+)\]", page.read_text(), re.MULTILINE)
    ]
    assert {name for name in defined if defined.count(name) > 1} == set(), "an id is one sentence's"
    for room in ("contract", "agent", "fleet", "converter"):
        for path in (ROOT / room).rglob("*.py"):
            for cited in SPEC_IDS.findall(path.read_text()):
                assert any(cited == name or name.startswith(f"{cited}.") for name in defined), (
                    f"{path.relative_to(ROOT)} cites [{cited}], which no page of docs/spec defines"
                )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def commands() -> list[tuple[str, str]]:
    """Every line of our programs in an indented or fenced block of a page, joined over `\\`."""
    found = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for line in text.splitlines():
            words = line.strip().removeprefix("$ ").removeprefix("sudo ")
            if re.match(r"(?:\S*/)?(edge-agent|edge-convert|fleet) [a-z]", words) and (
                line.startswith(("    ", "$ ")) or in_fence(text, line)
            ):
                found.append((page.name, words))
    return found


def in_fence(text: str, line: str) -> bool:
    """Whether a line stands in a fenced block."""
    before = text[: text.index(line)]
    return before.count("```") % 2 == 1


@pytest.mark.parametrize(("page", "line"), commands(), ids=lambda value: value[:60])
def test_a_command_in_the_docs_is_one_that_exists(page: str, line: str) -> None:
    """Its program, its subcommands and its options are those of `--help`."""
    words = line.split()
    program = words[0].rpartition("/")[2]
    path: list[str] = []
    for word in words[1:]:
        if not re.fullmatch(r"[a-z][a-z-]*", word) or not is_command(program, [*path, word]):
            break
        path.append(word)
    assert path, f"{page}: {line}"
    text = help_text(program, path)
    for option in re.findall(r"(?<= )--[a-z-]+", line):
        assert option in text, f"{page}: {program} {' '.join(path)} has no {option}"


def is_command(program: str, path: list[str]) -> bool:
    """Whether a program has such a subcommand: its help is another than its parent's."""
    return bool(help_text(program, path)) and help_text(program, path) != help_text(
        program, path[:-1]
    )


_help: dict[tuple[str, ...], str] = {}


def help_text(program: str, path: list[str]) -> str:
    """The help of a subcommand; empty where there is none."""
    key = (program, *path)
    if key not in _help:
        done = subprocess.run(
            [BIN / program, *path, "--help"],
            capture_output=True,
            text=True,
            check=False,
            env={"COLUMNS": "200", "PATH": "/usr/bin:/bin", "TERM": "dumb"},
        )
        _help[key] = done.stdout if done.returncode == 0 else ""
    return _help[key]
