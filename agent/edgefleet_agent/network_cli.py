"""What the command line has for predictions on the network: `token`, `certificate`, credentials.

Tokens are changed in their file, which the front looks at on every request: there is nothing to
restart, and it works while the agent is stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from edgefleet_agent import config as configs
from edgefleet_agent.serving.lan import LanConfig
from edgefleet_agent.serving.token_file import changing, load
from edgefleet_agent.serving.tokens import Token, make_token, parse_span

if TYPE_CHECKING:
    from edgefleet_agent.client import Credentials

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

TOKEN_VARIABLE: Final = "EDGE_AGENT_TOKEN"  # noqa: S105 # the name of a variable


class Command(Protocol):
    """Makes a subcommand with the options that all have."""

    def __call__(
        self, name: str, action: Action, text: str, among: Subparsers
    ) -> argparse.ArgumentParser:
        """The parser of the subcommand."""
        ...


class Action(Protocol):
    """What a subcommand does; the exit code."""

    def __call__(self, args: argparse.Namespace, /) -> int:
        """Do it."""
        ...


def add_commands(commands: Subparsers, command: Command) -> None:
    """`token add`, `token list`, `token revoke`, `certificate`."""
    text = "Say who may ask for predictions over the network ([serving.lan])."
    tokens = commands.add_parser("token", help=text, description=text)
    ways = tokens.add_subparsers(metavar="COMMAND", required=True)
    add = command("add", _add, "Make a token and print it: it is shown this once.", ways)
    add.add_argument("name", help="whose it is; stands in the metrics")
    add.add_argument(
        "--models",
        default="",
        metavar="A,B",
        help="the names under which models are served that it opens (default: all)",
    )
    add.add_argument(
        "--measure",
        action="store_true",
        help="it opens no model: publishers measure theirs with it ([serving.measure])",
    )
    add.add_argument(
        "--expires", metavar="SPAN", help="when it ends: 90d, 12h, 30m (default: it does not)"
    )
    show = command("list", _list, "List the tokens; what they are is not kept.", ways)
    show.add_argument("--json", action="store_true", help="print JSON for scripts")
    revoke = command("revoke", _revoke, "Refuse a token from its next request on.", ways)
    revoke.add_argument("name", help="whose it is")
    text = "Show the certificate of the network port, and the fingerprint to know its key by."
    certificate = command("certificate", _certificate, text, commands)
    certificate.add_argument("--json", action="store_true", help="print JSON for scripts")


def add_credentials(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """The options of a client that asks over https."""
    parser.add_argument(
        "--token",
        default=None,
        help=f"for https (better: the variable {TOKEN_VARIABLE}, which other users cannot see)",
    )
    parser.add_argument(
        "--fingerprint",
        default="",
        metavar="sha256//BASE64",
        help="know the agent by this key (`edge-agent certificate`)",
    )
    parser.add_argument(
        "--ca",
        default="",
        metavar="FILE",
        help="PEM file that vouches for the agent (default: this system's authorities)",
    )
    parser.add_argument("--cert", default="", metavar="FILE", help="the client's certificate, PEM")
    parser.add_argument("--key", default="", metavar="FILE", help="its key, PEM")
    parser.set_defaults(token_of_environ=environ.get(TOKEN_VARIABLE, ""))


def credentials(args: argparse.Namespace) -> Credentials:
    """What the options say; the variable's token is for https only."""
    from edgefleet_agent.client import Credentials

    is_tls = (args.address or "").startswith("https://")
    token = args.token if args.token is not None else args.token_of_environ if is_tls else ""
    return Credentials(
        token=token,
        ca=args.ca,
        fingerprint=args.fingerprint,
        certificate=args.cert,
        key=args.key,
    )


def _add(args: argparse.Namespace) -> int:
    models = tuple(name for name in args.models.split(",") if name)
    token, secret = make_token(
        args.name,
        now=int(time.time()),
        lasts_s=parse_span(args.expires) if args.expires else 0,
        models=models,
        measures=args.measure,
    )
    lan = _lan(args)
    with changing(_place(args, lan).tokens_file) as held:
        held[0] = held[0].add(token)
    if lan is None or not lan.tokens:
        _say("[serving.lan] of agent.toml takes no tokens yet")
    print(secret)  # noqa: T201 - results go to stdout
    return 0


def _list(args: argparse.Namespace) -> int:
    table = load(_place(args, _lan(args)).tokens_file)
    if args.json:
        rows = [
            {
                "name": token.name,
                "models": list(token.models),
                "measures": token.measures,
                "created": _date(token.created),
                "expires": _date(token.expires) if token.expires else None,
            }
            for token in table.tokens
        ]
        print(json.dumps(rows, indent=2))  # noqa: T201 - results go to stdout
        return 0
    for token in table.tokens:
        opens = "measuring" if token.measures else ", ".join(token.models) or "all models"
        print(f"{token.name:24} {_ends(token):32} {opens}")  # noqa: T201 - results go to stdout
    return 0


def _revoke(args: argparse.Namespace) -> int:
    with changing(_place(args, _lan(args)).tokens_file) as held:
        held[0] = held[0].revoke(args.name)
    return 0


def _certificate(args: argparse.Namespace) -> int:
    from edgefleet_agent.adapters.lan_certificate import read_certificate

    file = _place(args, _lan(args)).certificate_file
    shown = read_certificate(file)
    found = {
        "fingerprint": shown.fingerprint,
        "file": str(file),
        "ends": shown.ends.isoformat(),
        "names": list(shown.names),
    }
    if args.json:
        print(json.dumps(found, indent=2))  # noqa: T201 - results go to stdout
        return 0
    for name, value in (found | {"names": ", ".join(shown.names)}).items():
        print(f"{name:12} {value}")  # noqa: T201 - results go to stdout
    return 0


def _lan(args: argparse.Namespace) -> LanConfig | None:
    return configs.load(args.config, args.state).serving.lan


def _place(args: argparse.Namespace, lan: LanConfig | None) -> LanConfig:
    """Where the files are, also before the table is in the configuration."""
    state: Path = args.state
    return lan or LanConfig(listen=("0.0.0.0:0",)).below(state)  # nothing listens


def _ends(token: Token) -> str:
    if not token.expires:
        return "does not end"
    word = "ended" if token.is_expired(time.time()) else "until"
    return f"{word} {_date(token.expires)}"


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _say(text: str) -> None:
    print(f"edge-agent: {text}", file=sys.stderr)  # noqa: T201 - talk goes to stderr
