"""The commands of `fleet`. Results go to stdout, talk to stderr; `--json` where a script listens.

Exit codes stand in `errors.py`, and at the end of `fleet --help`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from edgefleet_contract import __version__
from edgefleet_contract.errors import OperatorError
from edgefleet_fleet import cli_apply, cli_audit, cli_backup, cli_devices, cli_doctor, cli_enrolment
from edgefleet_fleet import cli_show as show
from edgefleet_fleet.cli_bundles import bundles, models, release
from edgefleet_fleet.cli_fleets import fleets
from edgefleet_fleet.cli_groups import groups
from edgefleet_fleet.cli_keys import keys, load_key
from edgefleet_fleet.cli_options import (
    CA_VARIABLE,
    DEFAULT_URL,
    Data,
    Json,
    Url,
    client,
    data_dir,
)
from edgefleet_fleet.cli_rollouts import rollouts, watch_rollout
from edgefleet_fleet.cli_users import users
from edgefleet_fleet.cli_webhooks import webhooks
from edgefleet_fleet.client import new_key
from edgefleet_fleet.cohort import parse_waves, wave_words
from edgefleet_fleet.config import Config
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.errors import EXIT_USAGE, exit_codes
from edgefleet_fleet.filter_parser import parse_filter
from edgefleet_fleet.plan_words import duration, gates, moment
from edgefleet_fleet.plan_words import pace as read_pace
from edgefleet_fleet.plan_words import rate as read_rate
from edgefleet_fleet.plan_words import retries as read_retries
from edgefleet_fleet.policy_file import read_policy
from edgefleet_fleet.push import check_files, read_bundle
from edgefleet_fleet.site_folder import config_for, site_of

app = typer.Typer(
    name="fleet",
    help="The control room of an edge fleet: who gets which model, when, and when to stop.",
    no_args_is_help=True,
    add_completion=True,
    epilog=exit_codes(),
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
devices = typer.Typer(help="The devices of the fleet.", no_args_is_help=True)
for name, group in (
    ("keys", keys),
    ("users", users),
    ("devices", devices),
    ("groups", groups),
    ("bundles", bundles),
    ("models", models),
    ("rollouts", rollouts),
    ("webhooks", webhooks),
    ("fleets", fleets),
):
    app.add_typer(group, name=name)
app.command("backup")(cli_backup.backup)
app.command("restore")(cli_backup.restore)
app.command("apply")(cli_apply.apply)
app.command("audit")(cli_audit.audit)
app.command("doctor")(cli_doctor.doctor_command)
app.command("export")(cli_audit.export)


def _say_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"fleet {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[  # noqa: ARG001 - its callback tells it
        bool,
        typer.Option(
            "--version", callback=_say_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    ca: Annotated[
        Path | None,
        typer.Option(
            help="The authority (PEM) of an https control room's certificate;"
            " left out: that of the data directory, else those of the system.",
            envvar=CA_VARIABLE,
        ),
    ] = None,
) -> None:
    """What every command takes."""
    if ca is not None:
        os.environ[CA_VARIABLE] = str(ca)  # where `client` looks, as it does for the token


_WRONG_USAGE: type[Exception] = typer.BadParameter.__mro__[2]  # ClickException, wherever it is


def run() -> int:
    """Run the command line; its exit code."""
    try:
        code = app(standalone_mode=False, prog_name="fleet")
    except _WRONG_USAGE as error:
        return _explain_usage(error)
    except typer.Abort:
        return 130
    return code if isinstance(code, int) else 0


def _explain_usage(error: BaseException) -> int:
    """A command line that is not one: help where nothing was asked for, else what is wrong."""
    message = str(getattr(error, "format_message", error.__str__)())
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message or getattr(context, "get_help", str)(), err=True)
        return EXIT_USAGE
    told = " ".join(message.split()).rstrip(".")  # choices come a line each
    typer.echo(f"fleet: error: {told}", err=True)
    typer.echo(f"fleet: hint: {getattr(context, 'command_path', 'fleet')} --help", err=True)
    return EXIT_USAGE


def _config(data: DataDir, file: Path | None, **flags: Any) -> Config:
    site = site_of(data)
    if site is not None:
        raise OperatorError(
            f"{data.root} is a fleet of the site {site.root}",
            hint=f"fleet serve --data {site.root} runs them all",
        )
    return config_for(data, file, os.environ, **flags)


@app.command()
def init(
    data: Data = None,
    name: Annotated[str | None, typer.Option(help="What the fleet is called.")] = None,
    public_host: Annotated[
        str | None, typer.Option(help="The host name under which devices find the broker.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A fleet.toml.")] = None,
) -> None:
    """Make a data directory: keys, certificates, the operator's token, the data base."""
    from edgefleet_fleet.server import open_room

    folder = DataDir(data_dir(data))
    found = _config(folder, config, name=name, public_host=public_host)
    with folder.locked():
        room = open_room(folder, found, http_port=found.listen_address[1])
        room.store.close()
    typer.echo(f"fleet {room.fleet!r} in {folder.root}", err=True)


@app.command()
def serve(
    data: Data = None,
    name: Annotated[str | None, typer.Option(help="What the fleet is called.")] = None,
    listen: Annotated[
        str | None, typer.Option(help="host:port of the HTTP service; port 0 takes any.")
    ] = None,
    public_url: Annotated[
        str | None, typer.Option(help="The URL under which devices reach the HTTP service.")
    ] = None,
    public_host: Annotated[
        str | None, typer.Option(help="The host name under which devices find the broker.")
    ] = None,
    tls: Annotated[
        str | None,
        typer.Option(help="'own': HTTPS with a certificate of the fleet's authority; or 'off'."),
    ] = None,
    mqtt_port: Annotated[
        int | None, typer.Option(help="The port of the broker; 0 takes any.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A fleet.toml.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
    as_json: Json = False,
) -> None:
    """Run the control room: store, shelf, broker, API and page, until Ctrl-C or SIGTERM."""
    from edgefleet_fleet.server import Ready, leave
    from edgefleet_fleet.server import serve as run_server
    from edgefleet_fleet.site import NamesTheFleet

    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(levelname).1s %(name)s: %(message)s",
    )
    for noisy in ("gmqtt", "edgefleet.gmqtt", "alembic", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.INFO if verbose else logging.ERROR)
    for handler in logging.getLogger().handlers:
        handler.addFilter(NamesTheFleet())
    folder = DataDir(data_dir(data))
    found = _config(
        folder,
        config,
        name=name,
        listen=listen,
        public_url=public_url,
        public_host=public_host,
        tls=tls,
        mqtt_port=mqtt_port,
    )
    if found.is_exposed:
        typer.echo(
            f"fleet: warning: {found.listen} is open to the network without TLS: tokens, claims"
            " and models can be read on the way\nfleet: hint: --tls own, or a proxy with TLS",
            err=True,
        )

    def say(ready: Ready) -> None:
        typer.echo(f"broker  {ready.mqtt_host}:{ready.mqtt_port}", err=True)
        show.one(dataclasses.asdict(ready), as_json=as_json, line=ready.page)

    asyncio.run(run_server(folder, found, ready=say))
    leave()


@app.command("push-model")
def push_model(
    bundle: Annotated[Path, typer.Argument(help="The bundle's directory.", metavar="DIR")],
    to: Annotated[
        str,
        typer.Option(
            help="Whom: 'all', group:NAME, or tests such as 'hw=arm64 and tag.site=hall3'."
        ),
    ] = "all",
    slot: Annotated[
        str, typer.Option(help="The name to serve it under; the model's name if left out.")
    ] = "",
    canary: Annotated[
        list[str] | None, typer.Option(help="A device that gets it first; repeatable.")
    ] = None,
    waves: Annotated[
        str, typer.Option(help="Cumulative shares in percent; 5n means the first five devices.")
    ] = "100",
    max_failures: Annotated[
        int | None,
        typer.Option(help="Stop at this many bad devices; left out: 1 canary, then a rate."),
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(help="When to stop: failures=5%,silence=15m,errors=2%,p95=200,…; repeatable."),
    ] = None,
    soak: Annotated[
        str, typer.Option(help="How long a wave must have stood before the next: 30m.")
    ] = "0",
    pace: Annotated[
        str, typer.Option(help="How fast within a wave: 50/min,at-once=20,ramp=2x100,max=1000.")
    ] = "",
    retries: Annotated[
        str,
        typer.Option(
            help="How often a device that could not fetch it is asked again: 2; 3,wait=30m."
        ),
    ] = "",
    hold_after: Annotated[
        list[int] | None,
        typer.Option(help="A wave after which a person opens the next; repeatable."),
    ] = None,
    start_at: Annotated[
        str, typer.Option(help="Not before: +2h, or a date and time with its zone.")
    ] = "",
    expires: Annotated[str, typer.Option(help="Not after, in the same words.")] = "",
    approve_by: Annotated[
        str, typer.Option(help="Who must approve it first: a user, or 'any' second person.")
    ] = "",
    draft: Annotated[
        bool, typer.Option("--draft", help="Do not begin: `fleet rollouts start` does.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say who would get it and when; roll nothing out.")
    ] = False,
    probation: Annotated[
        int | None,
        typer.Option(help="Seconds that a new version serves before its commit; 2 if left out."),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(help="A policy.toml: when, how carefully, how fast; see the guide."),
    ] = None,
    rate: Annotated[
        str,
        typer.Option(help="How fast a device may fetch: 200kB/s; left out: as the policy says."),
    ] = "",
    allow_downgrade: Annotated[
        bool, typer.Option("--allow-downgrade", help="Let devices go back to an older version.")
    ] = False,
    retry_quarantined: Annotated[
        bool, typer.Option("--retry-quarantined", help="Try again where it failed before.")
    ] = False,
    sealed: Annotated[
        bool, typer.Option("--sealed", help="Send files that only the devices meant can open.")
    ] = False,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Push what the fleet does not verify; devices do.")
    ] = False,
    key: Annotated[
        Path | None,
        typer.Option(help="The publisher's private key: releases the bundle if it is not yet."),
    ] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="The key's passphrase: the file's first line.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay until it stands still.")] = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> int:
    """Upload a signed bundle, release it, and roll it out.

    With --watch the exit code is 0 when the rollout completed, 1 when it stopped, and 5 when it
    waits for a person (approval, a draft, a manual gate).
    """
    parse_filter(to)
    now = time.time()
    how = {
        "canaries": canary or [],
        "waves": wave_words(parse_waves(waves)),
        "max_failures": max_failures,
        **gates(gate or ()),
        "pace": read_pace(pace),
        "retries": read_retries(retries),
        "soak_s": duration(soak),
        "hold_after": hold_after or [],
        "start_at": moment(start_at, now=now) if start_at else 0,
        "expires_at": moment(expires, now=now) if expires else 0,
        "approve_by": approve_by,
        "draft": draft,
    }
    asked = read_policy(
        policy,
        probation_s=probation,
        max_bytes_per_s=read_rate(rate) if rate else None,
        retry_quarantined=retry_quarantined or None,
    )
    room = client(url, data)
    found = read_bundle(bundle)
    if not no_check:
        check_files(found)
    taken = show.upload(room, found, check=not no_check)
    if sealed and taken["in_clear"]:
        show.talk("an earlier rollout hands this bundle out in the clear: sealing hides it no more")
    if key is not None:
        release(room, found, load_key(key, passphrase_file))
    wish = {
        "bundle": found.digest,
        "signature_sha256": found.signature_sha256,
        "slot": slot,
        "to": to,
        **how,
        "policy": asked,
        "allow_downgrade": allow_downgrade,
        "sealed": sealed,
    }
    if dry_run:
        show.visits(room.post("/rollouts/rehearse", wish)["devices"], as_json=as_json)
        return 0
    view = room.post("/rollouts", wish, key=new_key())
    show.talk(f"rollout {view['id']}: {view['counts']['total']} devices")
    if not view["counts"]["total"]:
        show.talk("no device is meant yet; those that join later will be asked")
    return (
        watch_rollout(room, view, as_json=as_json) if watch else show.started(view, as_json=as_json)
    )


@devices.command("list")
def devices_list(
    to: Annotated[str, typer.Option(help="Only those that a filter means.")] = "all",
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """The devices and what they run."""
    room = client(url, data)
    found = list(room.list("/devices", to=to))
    show.devices(found, as_json=as_json)


@devices.command("show")
def devices_show(
    device: str, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None
) -> None:
    """One device, what it should run, and its last events."""
    show.device(client(url, data).get(f"/devices/{show.quote(device)}"), as_json=as_json)


for name, action in (
    ("claim", cli_enrolment.claim),
    ("requests", cli_enrolment.requests),
    ("approve", cli_enrolment.approve),
    ("deny", cli_enrolment.deny),
    *cli_devices.COMMANDS,
):
    devices.command(name)(action)


@devices.command("revoke")
def devices_revoke(device: str, url: Url = DEFAULT_URL, data: Data = None) -> None:
    """Cut a device off, now and for good: its certificates and its key are worth nothing more."""
    client(url, data).post(f"/devices/{show.quote(device)}/revoke")
    show.talk(f"{device} is revoked")


@devices.command("forget")
def devices_forget(device: str, url: Url = DEFAULT_URL, data: Data = None) -> None:
    """Take a device out of the fleet; its name may be enrolled again by any key."""
    client(url, data).delete(f"/devices/{show.quote(device)}")
    show.talk(f"{device} is forgotten")
