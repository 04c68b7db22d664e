"""The command line of the device: enrol, run, status, models, predict, sources, verify, measure,
token, certificate.

Results go to stdout, talk to stderr. Exit codes: 0 done, 1 failed, 2 used wrongly, 3 refused
because it is not vouched for, 4 could not be reached, or waits for approval (`enrol --no-wait`).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from edgefleet_agent import config as configs
from edgefleet_agent import identity as identities
from edgefleet_agent import network_cli
from edgefleet_agent.adapters.journal import Journal
from edgefleet_agent.network_cli import Subparsers
from edgefleet_contract import __version__
from edgefleet_contract.errors import (
    DeviceError,
    EdgefleetError,
    OperatorError,
    PeerError,
    TransientError,
)
from edgefleet_contract.keys import KeyRing, PublicKey

PROG: Final = "edge-agent"


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one command; the exit code."""
    args = _parser(environ).parse_args(argv)
    logging.basicConfig(
        level=args.log_level.upper(),
        format="%(levelname)s %(name)s: %(message)s"
        if "JOURNAL_STREAM" in environ
        else "%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    action: Callable[[argparse.Namespace], int] = args.action
    try:
        return action(args)
    except EdgefleetError as error:
        _say(f"error: {error.message}")
        if error.hint:
            _say(f"hint: {error.hint}")
        return 3 if isinstance(error, PeerError) else 4 if isinstance(error, TransientError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    state = (
        environ.get("STATE_DIRECTORY")
        or environ.get("EDGE_AGENT_STATE")
        or str(
            Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "edge-agent"
        )
    )
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="Run machine-learning models on this board: verify, swap, serve, report.",
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str,
        action: Callable[[argparse.Namespace], int],
        text: str,
        among: Subparsers = commands,
    ) -> argparse.ArgumentParser:
        sub = among.add_parser(name, help=text, description=text)
        sub.add_argument(
            "--state",
            type=Path,
            default=Path(state),
            metavar="DIR",
            help="where the agent keeps its state (default: %(default)s)",
        )
        sub.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            help="configuration (default: agent.toml in the state folder)",
        )
        sub.add_argument(
            "--log-level",
            choices=("debug", "info", "warning", "error"),
            default="info" if name == "run" else "warning",
            help="how much is said on stderr (default: %(default)s)",
        )
        sub.set_defaults(action=action)
        return sub

    enrol = command("enrol", _enrol, "Enrol this device in a fleet, with a claim.")
    enrol.add_argument("--fleet", required=True, metavar="URL", help="the fleet service's address")
    enrol.add_argument(
        "--claim-file",
        metavar="FILE",
        help="a file that holds the claim from `fleet devices claim`; - reads standard input"
        " (default: the systemd credential `claim`)",
    )
    enrol.add_argument(
        "--device",
        default=socket.gethostname().split(".")[0].lower(),
        metavar="NAME",
        help="this device's name in the fleet (default: its host name, %(default)s)",
    )
    enrol.add_argument(
        "--no-wait",
        action="store_true",
        help="exit with code 4 where an operator must approve first, instead of waiting",
    )
    command("run", _run, "Run the agent in the foreground; systemd does this.")
    for name, action, text in (
        ("status", _status, "Show where this device stands, also while the agent is stopped."),
        ("models", _models, "List the models of this device."),
        ("sources", _sources, "List the sources of this device, and the kinds that it could have."),
    ):
        command(name, action, text).add_argument(
            "--json", action="store_true", help="print JSON for scripts"
        )
    predict = command("predict", _predict, "Ask a model of the running agent.")
    predict.add_argument("model", help="the name under which the model is served")
    predict.add_argument(
        "input",
        help="a JSON file (a TensorFlow Serving request, or a list of rows), - for JSON on standard"
        " input, .npy, .npz (by input names), .png, .jpg or .wav",
    )
    predict.add_argument(
        "--top", type=int, metavar="K", help="print the K largest classes, with their labels"
    )
    predict.add_argument(
        "--scale",
        type=float,
        metavar="X",
        help="divide an image's values by X, 255 for 0 to 1 (default: 0 to 255, as they are)",
    )
    predict.add_argument(
        "--json", action="store_true", help="print JSON for scripts; without --top it always is"
    )
    predict.add_argument(
        "--address",
        metavar="unix:PATH|HOST:PORT|https://HOST:PORT",
        help="default: the agent's first",
    )
    network_cli.add_credentials(predict, environ)
    verify = command("verify", _verify, "Check a bundle directory: signature, and every file.")
    verify.add_argument("bundle", type=Path, help="the directory of the bundle")
    verify.add_argument(
        "--key",
        type=Path,
        action="append",
        metavar="PUB.pem",
        help="a publisher's public key (default: the publishers that this device trusts)",
    )
    verify.add_argument("--json", action="store_true", help="print JSON for scripts")
    measure = command("measure", _measure, "Measure what models cost on this board.")
    measure.add_argument(
        "job", help="what `edge-convert bench` sends: a tar, a folder, or - for standard input"
    )
    network_cli.add_commands(commands, command)
    return parser


def _enrol(args: argparse.Namespace) -> int:
    from edgefleet_agent.adapters.host_metrics import capabilities, hardware_class
    from edgefleet_agent.adapters.tls import read_authorities
    from edgefleet_agent.approval import Patience, refuse_to_wait
    from edgefleet_agent.daemon import usable_engines
    from edgefleet_agent.enrol import enrol
    from edgefleet_contract.trust import parse_claim

    config = configs.load(args.config, args.state)
    try:
        file = args.claim_file or identities.credential("claim")
        if file is None:
            raise OperatorError(
                "there is no claim", hint="--claim-file FILE, or the systemd credential `claim`"
            )
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"cannot read the claim: {error}") from None
    able = capabilities(usable_engines(config), hardware_class())
    done = enrol(
        args.state,
        url=args.fleet,
        claim=parse_claim(text),
        device=args.device,
        capabilities=able,
        wait=refuse_to_wait if args.no_wait else Patience(_say, time.sleep),
        authorities=read_authorities(config.http.ca_file),
    )
    _say(
        f"enrolled as {done.device} in fleet {done.fleet}; broker {done.mqtt_host}:{done.mqtt_port}"
    )
    return 0


def _run(args: argparse.Namespace) -> int:
    from edgefleet_agent.daemon import run

    run(args.state, configs.load(args.config, args.state))
    return 0


def _status(args: argparse.Namespace) -> int:
    from edgefleet_contract import codec

    identity = identities.load(args.state)
    device = Journal(args.state).load()
    install = device.install
    platforms = _platforms(args, tuple(device.slots))
    drift = _drift(args)
    found: dict[str, object] = {
        "fleet": identity.enrolment.fleet,
        "device": identity.enrolment.device,
        "phase": str(device.phase),
        "order_seq": device.seq,
        "reason": str(install.reason) if install and install.reason else None,
        "detail": install.detail if install else "",
        "models": {slot: codec.encode(item) for slot, item in device.slots.items()},
        "quarantined": list(device.quarantined),
        "ready": _is_ready(args),
        "platforms": platforms,
        "drift": drift,
    }
    if args.json:
        print(json.dumps(found, indent=2))  # noqa: T201 - results go to stdout
        return 0
    lines = {
        "device": f"{found['device']} (fleet {found['fleet']})",
        "agent": "serving" if found["ready"] else "not running, or not ready",
        "install": f"{found['phase']} (order {device.seq})",
        "reason": f"{found['reason']}: {found['detail']}" if found["reason"] else "",
        "models": ", ".join(
            f"{slot} = {item.target.model}@{item.target.version}"
            f" ({item.variant} on {platforms.get(slot, item.engine)})"
            for slot, item in device.slots.items()
        )
        or "none",
        "drift": ", ".join(f"{slot} {psi:.2f}" for slot, psi in drift.items()),
        "quarantined": ", ".join(digest[:12] for digest in device.quarantined),
    }
    for name, value in lines.items():
        if value:
            print(f"{name:12} {value}")  # noqa: T201 - results go to stdout
    return 0


def _models(args: argparse.Namespace) -> int:
    device = Journal(args.state).load()
    rows = [
        {
            "slot": slot,
            "model": item.target.model,
            "version": item.target.version,
            "variant": item.variant,
            "engine": item.engine,
            "bundle_sha256": item.target.bundle_sha256,
            "previous_version": before.target.version if before else None,
        }
        for slot, item in sorted(device.slots.items())
        for before in [device.previous.get(slot)]
    ]
    if args.json:
        print(json.dumps(rows, indent=2))  # noqa: T201 - results go to stdout
        return 0
    for row in rows:
        print(  # noqa: T201 - results go to stdout
            f"{row['slot']:20} {row['model']}@{row['version']:<6} {row['variant']:16}"
            f" {row['engine']:16} {str(row['bundle_sha256'])[:12]}"
        )
    return 0


def _sources(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from edgefleet_agent.sources.probe import find

    config = configs.load(args.config, args.state)
    found = find()
    if args.json:
        configured = [
            {
                "name": each.name,
                "kind": each.kind,
                "model": each.model,
                "sink": each.sink.kind if each.sink else None,
            }
            for each in config.sources
        ]
        value = {"sources": configured, "kinds": [asdict(kind) for kind in found]}
        print(json.dumps(value, indent=2))  # noqa: T201 - results go to stdout
        return 0
    for each in config.sources:
        sink = f", results to {each.sink.kind} on {each.sink.on}" if each.sink else ""
        print(f"{each.name:20} {each.kind} asks {each.model}{sink}")  # noqa: T201 - the same
    for kind in found:
        state = kind.trouble or "ready"
        print(f"{kind.use:8} {kind.name:16} {kind.package:20} {state}")  # noqa: T201 - the same
    return 0


def _predict(args: argparse.Namespace) -> int:
    from edgefleet_agent.client.command import predict

    address = args.address or configs.load(args.config, args.state).serving.listen[0]
    text = predict(
        address,
        args.model,
        args.input,
        top=args.top,
        scale=args.scale,
        as_json=args.json,
        credentials=network_cli.credentials(args),
    )
    print(text)  # noqa: T201 - results go to stdout
    return 0


def _verify(args: argparse.Namespace) -> int:
    from edgefleet_contract.directory import verify_directory

    if args.key:
        try:
            pems = [path.read_text() for path in args.key]
        except (OSError, UnicodeDecodeError) as error:
            raise OperatorError(f"cannot read the key: {error}") from None
        ring = KeyRing(PublicKey.from_pem(pem) for pem in pems)
    else:
        from edgefleet_agent.adapters.tuf_client import TufClient
        from edgefleet_agent.enrol import TRUST_FOLDER

        client = TufClient(args.state / TRUST_FOLDER, identities.load(args.state).root)
        device = Journal(args.state).load()
        ring = client.cached(now=device.time_floor, floors=device.trust).publisher_ring
    bundle = verify_directory(args.bundle, ring)
    manifest = bundle.manifest
    if args.json:
        print(  # noqa: T201 - results go to stdout
            json.dumps(
                {
                    "model": manifest.model,
                    "version": manifest.version,
                    "sha256": bundle.digest,
                    "signer": bundle.signer,
                    "files": len(manifest.files),
                }
            )
        )
    else:
        _say(
            f"{manifest.model}@{manifest.version} is signed by {bundle.signer[:12]};"
            f" {len(manifest.files)} files are as signed"
        )
    return 0


def _measure(args: argparse.Namespace) -> int:
    from edgefleet_agent.measure_cli import measure

    return measure(args)


def _is_ready(args: argparse.Namespace) -> bool:
    from edgefleet_agent.client import Client

    with Client(configs.load(args.config, args.state).serving.listen[0]) as client:
        try:
            return client.is_ready()
        except (TransientError, DeviceError):
            return False


def _platforms(args: argparse.Namespace, slots: tuple[str, ...]) -> dict[str, str]:
    """What the slots that serve now run on: runtime, format, accelerator."""
    from edgefleet_agent.client import Client

    found: dict[str, str] = {}
    with Client(configs.load(args.config, args.state).serving.listen[0]) as client:
        for slot in slots:
            try:
                found[slot] = client.metadata(slot).platform
            except OperatorError:  # this one does not serve
                continue
            except (TransientError, DeviceError):
                break
    return found


def _drift(args: argparse.Namespace) -> dict[str, float]:
    """The largest population stability index of each slot that is watched and was judged."""
    from edgefleet_agent.client import Client

    found: dict[str, float] = {}
    with Client(configs.load(args.config, args.state).serving.listen[0]) as client:
        try:
            lines = client.metrics().splitlines()
        except (TransientError, DeviceError, OperatorError):
            return found
    for line in lines:
        if line.startswith("edgefleet_drift_psi{") and ',label="canary"' not in line:
            slot = line.partition('model="')[2].partition('"')[0]
            found[slot] = max(found.get(slot, 0.0), float(line.rpartition(" ")[2]))
    return found


def _say(text: str) -> None:
    print(f"{PROG}: {text}", file=sys.stderr)  # noqa: T201 - talk goes to stderr
