"""How the command line shows things: tables for people, JSON for scripts, talk on stderr."""

from __future__ import annotations

import json as json_module
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote as quote_url

import typer
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TaskID, TransferSpeedColumn
from rich.table import Table

from edgefleet_fleet import push
from edgefleet_fleet import watch as watching
from edgefleet_fleet.client import Client
from edgefleet_fleet.push import BundleDir

STDERR: Final = Console(stderr=True)
_STDOUT: Final = Console()


def talk(text: str) -> None:
    """Say something to the person at the terminal."""
    typer.echo(text, err=True)


def quote(text: str) -> str:
    """A text as a part of a URL."""
    return quote_url(text, safe="")


def json(value: object) -> None:
    """Print a value as JSON."""
    typer.echo(json_module.dumps(value, indent=2, ensure_ascii=False))


def one(value: Any, *, as_json: bool, line: str) -> None:
    """Print a value as JSON, or one line of it."""
    if as_json:
        json(value)
    else:
        typer.echo(line)


def upload(room: Client, bundle: BundleDir, *, check: bool) -> Any:
    """Bring a bundle to the control room, with a bar on a terminal; its view there."""
    columns = (*Progress.get_default_columns()[:2], DownloadColumn(), TransferSpeedColumn())
    is_quiet = not STDERR.is_terminal
    with Progress(*columns, console=STDERR, transient=True, disable=is_quiet) as bar:
        tasks: dict[str, TaskID] = {}

        def progress(path: str, there: int, size: int) -> None:
            if path not in tasks:
                tasks[path] = bar.add_task(path, total=size)
                if is_quiet:
                    talk(f"{path} ({size:,} bytes)")
            bar.update(tasks[path], completed=there)

        return push.upload(room, bundle, check=check, progress=progress)


def started(view: Any, *, as_json: bool) -> int:
    """Print the rollout that began."""
    one(view, as_json=as_json, line=view["id"])
    return 0


def rows(found: list[Any], *, as_json: bool, columns: tuple[str, ...]) -> None:
    """Print a list as JSON or as a table."""
    if as_json:
        json(found)
        return
    _table(columns, [[_cell(column, row[column]) for column in columns] for row in found])


def devices(found: list[Any], *, as_json: bool) -> None:
    """Print devices."""
    if as_json:
        json(found)
        return
    columns = ("device", "presence", "hw", "engine", "runs", "phase", "seen")
    _table(
        columns,
        [
            [
                view["id"],
                _presence(view),
                view["hw"],
                ", ".join(sorted(view["engines"])),
                _runs(view),
                " ".join(part for part in (view["phase"], view["reason"]) if part),
                moment(view["seen_at"]),
            ]
            for view in found
        ],
    )


def _presence(view: Any, *, since: bool = False) -> str:
    if view["revoked_at"]:
        return f"revoked {moment(view['revoked_at'])}" if since else "revoked"
    if view["online"]:
        return "online"
    return f"offline since {moment(view['seen_at'])}" if since else "offline"


def device(view: Any, *, as_json: bool) -> None:
    """Print one device."""
    if as_json:
        json(view)
        return
    desired = view["desired"]
    lines = {
        "device": view["id"],
        "presence": _presence(view, since=True),
        "key": view["key_id"],
        "seal key": view["seal_key"] or "none: it cannot have sealed models",
        "board": f"{view['board']} ({view['hardware_class']}, {view['arch']})",
        "agent": view["agent"],
        **_inventory(view["inventory"]),
        "tags": " ".join(f"{key}={value}" for key, value in sorted(view["tags"].items())),
        "engines": ", ".join(f"{name} {v}" for name, v in sorted(view["engines"].items())),
        "runs": _runs(view),
        "phase": " ".join(part for part in (view["phase"], view["reason_text"]) if part),
        "failed": ", ".join(digest[:16] for digest in view["quarantined"]),
        "desired": ", ".join(f"{t['slot']}={t['model']}@{t['version']}" for t in desired["targets"])
        if desired
        else "",
    }
    for name, text in lines.items():
        typer.echo(f"{name:9} {text}")
    for found in reversed(view["events"][:20]):
        typer.echo(event(found))


def event(found: Any) -> str:
    """A line of a device's history."""
    if found["phase"]:
        why = f"  {found['reason']}: {found['detail']}" if found["reason"] else ""
        words = f"{', '.join(found['models'])} {found['phase']}{why}"
    else:
        times = f" ({found['count']} times)" if found["count"] > 1 else ""
        who = f", by {found['who']}" if found["who"] else ""
        words = f"{found['kind']} {found['what']}{times}  {found['detail']}{who}".rstrip()
    return f"{moment(found['until'] or found['ts'])}  {plain(words)}"


def _inventory(found: Any) -> dict[str, str]:
    if not found:
        return {}
    features = ", ".join(found.get("features", []))
    cpu = f"{found['cpus']} x {found.get('cpu') or 'unknown'}"
    sizes = f"{found['memory_bytes'] / 2**30:.1f} GiB"
    if found.get("disk_bytes"):
        sizes += f", disk {found['disk_bytes'] / 2**30:.1f} GiB"
    kernel = found.get("kernel", "")
    return {
        "cpu": cpu + (f" ({features})" if features else ""),
        "memory": sizes,
        "os": f"{found['os']}{f', kernel {kernel}' if kernel else ''}, Python {found['python']}",
        "runs on": ", ".join(found.get("accelerators", [])),
    }


def bundle(view: Any, *, as_json: bool) -> None:
    """Print one bundle."""
    if as_json:
        json(view)
        return
    typer.echo(f"{view['name']}  {view['digest']}")
    typer.echo(f"signed by {view['signer'] or 'nobody that is trusted here'}")
    columns = ("path", "role", "size", "sha256")
    _table(columns, [[_cell(c, file[c]) for c in columns] for file in view["files"]])


def rollouts(found: list[Any], *, as_json: bool) -> None:
    """Print rollouts."""
    if as_json:
        json(found)
        return
    columns = ("rollout", "state", "to", "wave", "good", "bad", "total", "reasons", "began")
    _table(
        columns,
        [
            [
                view["id"],
                view["state"] + (f" ({view['cause']})" if view["cause"] else ""),
                view["to"],
                f"{view['wave'] + 1}/{view['wave_count']}",
                str(view["counts"]["good"]),
                str(view["counts"]["bad"]),
                str(view["counts"]["total"]),
                ", ".join(f"{word} {count}" for word, count in view["by_reason"].items()),
                moment(view["created_at"]),
            ]
            for view in found
        ],
    )


def rollout(view: Any, *, as_json: bool) -> None:
    """Print one rollout."""
    if as_json:
        json(view)
    else:
        _STDOUT.print(watching.table(view))


def visits(found: list[Any], *, as_json: bool) -> None:
    """Print a dry run: who would be asked, in which wave, and when at the earliest."""
    if as_json:
        json(found)
        return
    lines = [
        [
            visit["device"],
            visit["kind"],
            str(visit["wave"] + 1),
            moment(visit["at"]) if visit["at"] is not None else "not asked: its class is blocked",
        ]
        for visit in found
    ]
    _table(("device", "class", "wave", "earliest"), lines)


def _runs(view: Any) -> str:
    return ", ".join(f"{m['model']}@{m['version']} ({m['variant']})" for m in view["models"])


def _cell(column: str, value: Any) -> str:
    if column.endswith("_at"):
        return moment(value)
    if column in ("digest", "signer", "sha256"):
        return str(value)[:12] or "-"
    if column == "key_id":
        return str(value)[:16]
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return plain(str(value))


def plain(text: str) -> str:
    """A stranger's words, which neither move the cursor nor begin a row of their own."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def moment(seconds: int) -> str:
    """A time, seconds since 1970, as a clock on the wall here shows it."""
    if not seconds:
        return "never"
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _table(columns: tuple[str, ...], lines: list[list[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=not _STDOUT.is_terminal)
    for line in lines:
        table.add_row(*line)
    if _STDOUT.is_terminal:
        _STDOUT.print(table, markup=False)
    else:
        Console(width=400).print(table, markup=False)


def trust(view: Any) -> None:
    """Who may sign what, and until when that holds."""
    for role, found in view["documents"].items():
        typer.echo(f"{role:10} version {found['version']}, good until {_when(found['expires'])}")
    threshold = f"{view['root_threshold']} of {len(view['roots'])}"
    for name, held in (
        (f"roots ({threshold})", view["roots"]),
        ("publishers", view["publishers"]),
        ("repository", [view["repository"]]),
        ("directors", view["directors"]),
    ):
        for key in held:
            typer.echo(f"{name:16} {key['key_id'][:16]}  {key['algorithm']}")
    revoked = view["revoked"]
    for digest in revoked["digests"]:
        typer.echo(f"revoked          {digest[:16]}")
    for model, floor in revoked["floors"].items():
        typer.echo(f"floor            {model} {floor}")


def _when(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
