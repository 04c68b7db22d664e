"""How a plan is said on the command line: gates, pace, times; as the API takes it. No I/O.

`--gate failures=5%,errors=2%`, `--pace 50/min,ramp=2x100`, `--retries 3,wait=30m`, `--soak 30m`,
`--rate 200kB/s`, `--start-at +2h`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from edgefleet_contract.errors import Malformed
from edgefleet_fleet.model_gates import Kind

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES: Final = {"B": 1, "kB": 10**3, "MB": 10**6, "KiB": 2**10, "MiB": 2**20}
_RATE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?) ?(B|kB|MB|KiB|MiB)?(?:/s)?")
_DURATION = re.compile(r"(\d+)([smhd]?)")


def duration(text: str) -> int:
    """Seconds in `90`, `90s`, `15m`, `2h` or `7d`.

    Raises:
        Malformed: it is none of these.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise Malformed(f"a time of {text[:40]!r}", hint="90s, 15m, 2h or 7d")
    return int(found[1]) * _UNITS[found[2] or "s"]


def moment(text: str, *, now: float) -> int:
    """Seconds since 1970 of `+2h` from now, or of a date and time with its zone.

    Raises:
        Malformed: it is neither.
    """
    if text.startswith("+"):
        return int(now) + duration(text[1:])
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise Malformed(
            f"a moment of {text[:40]!r}", hint="+2h, or 2027-01-31T08:00+01:00 (with its zone)"
        )
    return int(found.timestamp())


def rate(text: str) -> int:
    """Bytes per second in `200kB/s`, `1.5MB/s`, `64KiB/s` or `50000`.

    Raises:
        Malformed: it is none of these.
    """
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise Malformed(f"a rate of {text[:40]!r}", hint="200kB/s, 1.5MB/s, 64KiB/s or 50000")
    return round(float(found[1]) * _BYTES[found[2] or "B"])


def share(text: str) -> float:
    """A share from 0 to 1 in `5%` or `0.05`.

    Raises:
        Malformed: it is no number.
    """
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise Malformed(f"a share of {text[:40]!r}", hint="5% or 0.05") from None


def _count(text: str) -> int:
    if not text.isdigit():
        raise Malformed(f"a count of {text[:40]!r}")
    return int(text)


def _on_trip(text: str) -> str | None:
    words = {"pause": None, "keep": "keep", "revert": "revert"}
    if text not in words:
        raise Malformed(f"on-trip {text[:40]!r}", hint="pause, keep (abort) or revert (abort)")
    return words[text]


_GATE: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "failures": ("limit", share),
    "min-count": ("min_count", _count),
    "canary-failures": ("canary_failures", _count),
    "pass": ("pass_ratio", share),
    "sample": ("min_sample", _count),
    "silence": ("silence_s", duration),
    "stall": ("stall_s", duration),
    "undone": ("undone_limit", share),
    "block-after": ("block_after", _count),
    "on-trip": ("on_trip", _on_trip),
}
"""The words of `--gate` that are fields of the gate."""


def gates(words: Iterable[str]) -> dict[str, Any]:
    """The API's `gate`, `model_gates` and `envelope` in `failures=5%,errors=2%:200,p95=200`.

    `:200` behind a model gate is its least sample. `p95=MS` and `ram=MIB` are the envelope, and the
    gates that hold it.

    Raises:
        Malformed: a word is not known.
    """
    gate: dict[str, Any] = {}
    models: dict[str, dict[str, Any]] = {}
    envelope: dict[str, int] = {}
    for word in (part.strip() for text in words for part in text.split(",")):
        name, _, value = word.partition("=")
        if name in _GATE and value:
            field, read = _GATE[name]
            found = read(value)
            gate |= {field: found} if found is not None else {}
        elif name in ("p95", "ram") and value:
            kind = Kind.SLOW if name == "p95" else Kind.MEMORY
            key, scale = ("p95_us", 1000) if name == "p95" else ("ram_mib", 1)
            envelope[key] = _count(value) * scale
            models.setdefault(kind.value, {"kind": kind.value, "limit": 0.05})
        elif name in set(Kind) and value:
            limit, _, sample = value.partition(":")
            models[name] = {"kind": name, "limit": share(limit)}
            models[name] |= {"min_sample": _count(sample)} if sample else {}
        else:
            known = ", ".join([*_GATE, "p95", "ram", *(kind.value for kind in Kind)])
            raise Malformed(f"gate {word[:60]!r} is not known", hint=f"word=value of {known}")
    return {"gate": gate, "model_gates": list(models.values()), "envelope": envelope}


def retries(text: str) -> dict[str, Any]:
    """The API's `retries` in `3` or `3,wait=30m`.

    Raises:
        Malformed: a word is not known.
    """
    found: dict[str, Any] = {}
    for word in (part.strip() for part in text.split(",") if part.strip()):
        if word.isdigit():
            found["most"] = int(word)
        elif word.startswith("wait="):
            found["wait_s"] = duration(word.removeprefix("wait="))
        else:
            raise Malformed(f"retries {word[:60]!r} is not known", hint="3, or 3,wait=30m")
    return found


def pace(text: str) -> dict[str, Any]:
    """The API's `pace` in `50/min,at-once=20,ramp=2x100,max=1000`.

    Raises:
        Malformed: a word is not known.
    """
    found: dict[str, Any] = {}
    for word in (part.strip() for part in text.split(",") if part.strip()):
        name, _, value = word.partition("=")
        if name.endswith("/min"):
            found["per_minute"] = _count(name.removesuffix("/min"))
        elif name in ("at-once", "max"):
            found["at_once" if name == "at-once" else "max_per_minute"] = _count(value)
        elif name == "ramp" and "x" in value:
            factor, _, every = value.partition("x")
            found |= {"factor": share(factor), "every": _count(every)}
        else:
            raise Malformed(
                f"pace {word[:60]!r} is not known", hint="50/min,at-once=20,ramp=2x100,max=1000"
            )
    return found
