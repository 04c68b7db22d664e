"""Hostile devices and strangers: what they say to the control room is dropped, and nothing kept."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import NameOID

from edgefleet_contract import codec, messages
from edgefleet_contract.enrolment import EnrolRequest
from edgefleet_contract.errors import PeerError
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.messages import render
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.reported import Presence
from edgefleet_contract.sealed import render_seal_key
from edgefleet_contract.topics import Channel, topic
from edgefleet_fleet import metrics, views
from edgefleet_fleet.adapters.sql.store import sqlite_url
from edgefleet_fleet.admission import Listed
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.ports import Incoming
from tests.contract.makers import order_of
from tests.fleet import conftest
from tests.fleet.device import (
    PI5,
    csr_of,
    event_of,
    model_sample,
    new_key,
    reported_of,
    request_of,
    system_sample,
)
from tests.fleet.stage import FLEET, ME, Clock, Stage
from tests.hostile.attempts import OPERATOR, Attempt, hostile
from tests.hostile.documents import _twists
from tests.hostile.ground import Ground

UNKNOWN = "unknown_device"


def stage(folder: Path, stack: ExitStack) -> Stage:
    """The control room of the fleet's own tests, with one device, `pi-1`."""
    folder.mkdir()
    publisher = PrivateKey.generate_p256()
    make = inspect.unwrap(conftest.services)
    given = {
        "tmp_path": folder,
        "clock": Clock(),
        "publisher": publisher,
        "roots": [PrivateKey.generate_ed25519() for _ in range(3)],
        "store_url": sqlite_url(DataDir(folder / "data").database),
    }
    wanted = {name: given[name] for name in inspect.signature(make).parameters}
    services = stack.enter_context(contextmanager(make)(**wanted))
    found = Stage(services, publisher, folder)
    found.devices("pi-1")
    return found


@cache
def schema(engine: sa.Engine) -> sa.MetaData:
    """The tables as the data base has them."""
    meta = sa.MetaData()
    meta.reflect(engine)
    return meta


def rows(found: Stage) -> object:
    """Every row of every table, and what the pages and the metrics make of them."""
    store = found.services.room.store
    meta = schema(store.engine)
    with store.engine.begin() as connection:
        tables = {
            name: sorted(map(repr, connection.execute(sa.select(table))))
            for name, table in meta.tables.items()
        }
    with store.begin() as tx:
        shown = (views.devices(tx), views.device(tx, "pi-1"))
    assert metrics.text(found.services)
    return tables, shown


def _messages() -> dict[Channel, bytes]:
    order = order_of()
    return {
        Channel.ONLINE: render(Presence("pi-1", "boot", True, "0.1", 1)),
        Channel.EVENT: render(event_of("pi-1", order, Phase.FAILED, None, seq=1)),
        Channel.REPORTED: render(reported_of("pi-1", order, Phase.IDLE, (), None)),
        Channel.TELEMETRY_SYSTEM: render(system_sample("pi-1")),
        Channel.TELEMETRY_MODEL: render(model_sample("pi-1")),
    }


WRONG: dict[str, dict[str, object]] = {
    "of another device": {"device": "pi-2"},
    "of a path": {"device": "../pi-1"},
    "of a list": {"device": ["pi-1"]},
    "of another schema": {"schema": "edgefleet.x/1"},
    "of no schema": {"schema": None},
    "a time as text": {"ts": "1"},
    "a time before 1970": {"ts": -1},
    "a time beyond calendars": {"ts": 2**52},
    "a time as a float": {"ts": 1.5},
}
MORE: dict[Channel, dict[str, dict[str, object]]] = {
    Channel.ONLINE: {
        "a boot of 129": {"boot_id": "b" * 129},
        "a NUL": {"boot_id": "a\0"},
        "online as text": {"online": "yes"},
    },
    Channel.EVENT: {
        "an unknown phase": {"phase": "exploded"},
        "a reason that is none": {"reason": "because"},
        "text that grows": {"detail": "\u00e9" * 100_000},
        "a NUL": {"detail": "a\0b"},
        "a NUL in a name": {"measurements": {"\0": 1}},
        "a measurement as text": {"measurements": {"a": "b"}},
        "a rollout of 161": {"rollout": "r" * 161},
        "a number beyond": {"seq": 2**53},
    },
    Channel.REPORTED: {
        "no capabilities": {"capabilities": None},
        "hardware of 129": {"capabilities": codec.encode(replace(PI5, hw="h" * 129))},
        "models as text": {"models": "digits"},
        "a digest as a number": {"quarantined": [1]},
    },
    Channel.TELEMETRY_SYSTEM: {
        "infinite load": {"load1": float("inf")},
        "load as text": {"load1": ""},
    },
    Channel.TELEMETRY_MODEL: {
        "a slot of 65": {"slot": "s" * 65},
        "a slot with a NUL": {"slot": "s\0"},
    },
}


@hostile("messages", Reason.MALFORMED, UNKNOWN, sample=60)
def device_messages(ground: Ground) -> Iterator[Attempt]:
    """Topics and payloads of devices: dropped, counted, and no row or page is other than before."""
    with ExitStack() as stack:
        found = stage(ground.folder / "fleet", stack)
        ingest = found.services.ingest

        def take(where: str, payload: bytes) -> Callable[[], object]:
            def go() -> object:
                before = dict(ingest.dropped)
                ingest.take([Incoming(where, payload)])
                for cause, count in ingest.dropped.items():
                    if count > before.get(cause, 0):
                        raise PeerError("dropped", reason=_Word(cause))
                return "taken"

            return go

        def attempt(name: str, where: str, payload: bytes) -> Attempt:
            return Attempt(name, take(where, payload), trace=lambda: rows(found))

        for channel, good in _messages().items():
            here = topic(FLEET, "pi-1", channel)
            for name, payload in _twists(good).items():
                if payload:  # nothing at all clears a retained topic
                    yield attempt(f"{channel}: {name}", here, payload)
            value = json.loads(good)
            for name, fields in (WRONG | MORE[channel]).items():
                raw = json.dumps({**value, **fields}, ensure_ascii=False).encode()
                yield attempt(f"{channel}: {name}", here, raw)
            yield attempt(f"{channel}: not enrolled", topic(FLEET, "pi-9", channel), good)
            yield attempt(f"{channel}: huge", here, good[:-1] + b" " * 300_000 + b"}")
        online = _messages()[Channel.ONLINE]
        for where in (
            *("edgefleet/v1/other/pi-1/online", "edgefleet/v2/demo/pi-1/online", "", "/", "#"),
            *("edgefleet/v1/demo/+/online", "edgefleet/v1/demo/pi-1/online/more", "$SYS/broker"),
            *("edgefleet/v1/demo/pi-1/desired", "edgefleet/v1/demo/../online", "edgefleet/v1/demo"),
            *("edgefleet/v1/demo/PI-1/online", "edgefleet/v1/demo/pi-1/telemetry", "\x1b[2J"),
        ):
            yield attempt(f"topic {where!r}", where, online)


class _Word(str):
    """A cause of a drop where an error has its reason."""

    __slots__ = ()


@hostile("enrolment", Reason.MALFORMED, OPERATOR, sample=40)
def enrolment(ground: Ground) -> Iterator[Attempt]:
    """Requests for a certificate that nobody gets: no row, and no use of the claim is spent."""
    with ExitStack() as stack:
        found = stage(ground.folder / "enrolment", stack)
        line = found.services.enrolment.make_claim(uses=5, hours=1, actor=ME)[1].render()
        good = request_of(line, "pi-7", new_key())

        def asked(raw: bytes) -> Callable[[], object]:
            def go() -> object:
                request = messages.parse(EnrolRequest, raw)
                return found.services.enrolment.enrol(request, address="10.0.0.9").device

            return go

        def attempt(name: str, raw: bytes) -> Attempt:
            return Attempt(name, asked(raw), trace=lambda: rows(found))

        for name, raw in _twists(render(good)).items():
            yield attempt(name, raw)
        for name, csr in _requests(good.csr, found.services.room.authority.pem):
            yield attempt(f"csr: {name}", render(replace(good, csr=csr)))
        for name in ("edgefleet-service", "edgefleet-observer"):
            csr = csr_of(new_key(), name)
            yield attempt(f"named {name}", render(replace(good, device=name, csr=csr)))
        value = json.loads(render(good))
        for name, more in _fields():
            yield attempt(name, json.dumps({**value, **more}).encode())
        owner = request_of(line, "pi-1", new_key())
        yield attempt("the name of another device", render(owner))
        listed = found.services.enrolment.make_claim(
            uses=5, hours=1, actor=ME, listed=[Listed("pi-8", "ab" * 32)]
        )[1].render()
        for name in ("pi-7", "pi-8"):  # who is not on the list, and who is under another key
            yield attempt(f"listed: {name}", render(request_of(listed, name, new_key())))
        for what in ("capabilities", "csr", "secret", "device", "schema"):
            raw = json.dumps({k: v for k, v in value.items() if k != what}).encode()
            yield attempt(f"without {what}", raw)
        other = request_of(line, "pi-7", new_key())
        misnamed = replace(other, csr=csr_of(new_key(), "edgefleet-service"))

        def named_in_certificate() -> object:
            answer = found.services.enrolment.enrol(misnamed, address="")
            certificate = x509.load_pem_x509_certificate(answer.certificate.encode())
            (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            return name.value

        yield Attempt("a csr for the service's name", named_in_certificate, same="pi-7")


def _requests(taken: str, certificate: str) -> Iterator[tuple[str, str]]:
    """What is no certificate request, or one for a key of a kind that nobody gets."""
    middle = len(taken) // 2
    spoilt = taken[:middle] + ("A" if taken[middle] != "A" else "B") + taken[middle + 1 :]
    yield from {
        "no request": "",
        "a NUL": "\0",
        "a key": PrivateKey.generate_p256().public.pem,
        "a request with a changed byte": spoilt,
        "half a request": taken[:middle],
        "an RSA key": signed_by(rsa.generate_private_key(65537, 2048)),
        "a Bitcoin key": signed_by(ec.generate_private_key(ec.SECP256K1())),
        "an Ed448 key": signed_by(ed448.Ed448PrivateKey.generate(), None),
        "a certificate": certificate,
    }.items()


def _fields() -> Iterator[tuple[str, dict[str, object]]]:
    """Fields of a request that nobody gets a certificate with."""
    for name in ("", "-", "../x", "a" * 65, "A", "pi 7", "pi-7\n", "+", "#", "\u0130"):
        yield f"named {name!r}", {"device": name}
    for secret in ("", "A" * 43, "\ud800", "' OR 1=1 --", "a" * 100_000):
        yield f"secret {secret[:20]!r}", {"secret": secret}
    for name, more in _seal_keys():
        yield f"a seal key {name}", more


def _seal_keys() -> Iterator[tuple[str, dict[str, object]]]:
    """Keys that models are not to be sealed for: nobody's, everybody's, or another's."""
    mine = render_seal_key(X25519PrivateKey.generate().public_key())
    for name, said, vouched in (
        ("in the place of the device's", mine, "ab" * 32),
        ("that nobody vouches for", mine, ""),
        ("that is left out", "", mine),
        ("of zeros, which shares its secret with all", "00" * 32, "00" * 32),
        ("of one", "01" + "00" * 31, "01" + "00" * 31),
        ("in upper case", "AB" * 32, "AB" * 32),
        ("of 31 bytes", "ab" * 31, "ab" * 31),
        ("of 4 MB", "ab" * 2_000_000, ""),
        ("with a NUL", "ab" * 31 + "a\0", ""),
    ):
        yield name, {"csr": csr_of(new_key(), "pi-7", vouched), "seal_key": said}
    for wrong in (None, 7, ["ab" * 32], {"key": "ab" * 32}, True):
        yield repr(wrong), {"seal_key": wrong}


def signed_by(key: Any, digest: Any = hashes.SHA256()) -> str:  # noqa: B008 - a constant
    """A certificate request by any kind of key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pi-7")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, digest)
    found: str = request.public_bytes(serialization.Encoding.PEM).decode()
    return found
