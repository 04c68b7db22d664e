"""How a page is made: a template, the fleet's words, headers that let nothing else be loaded."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import jinja2
from fastapi import Request
from starlette.responses import HTMLResponse

from edgefleet_contract import __version__
from edgefleet_contract.reasons import Reason, explain
from edgefleet_fleet.errors import NotFound
from edgefleet_fleet.services import Services

HERE: Final = Path(__file__).parent
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def render(request: Request, name: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page of a template, with these values.

    Raises:
        NotFound: there is no such template.
    """
    templates: jinja2.Environment = request.app.state.templates
    try:
        template = templates.get_template(name)
    except jinja2.TemplateNotFound:
        raise NotFound(f"there is no page {name}") from None
    text = template.render(path=path_of(request), status=status, now=int(time.time()), **values)
    return HTMLResponse(text, status, headers=HEADERS)


def path_of(request: Request) -> str:
    """The path below where the fleet's pages begin."""
    return request.url.path.removeprefix(str(request.scope.get("root_path", "")))


def environment(services: Services) -> jinja2.Environment:
    """The templates of a fleet."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals |= {"fleet": services.room.fleet, "version": __version__}
    found.globals["root"] = services.room.prefix
    found.filters |= {"size": size, "ago": _ago, "stamp": _stamp, "percent": percent}
    found.filters |= {"explain": _explain}
    return found


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("the last unit takes all")


def percent(ratio: float) -> str:
    """A ratio for people."""
    return f"{ratio:.0%}"


def _ago(seconds: int) -> str:
    if not seconds:
        return "never"
    past = max(0, int(time.time()) - seconds)
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h")):
        if past < limit:
            return f"{past // unit} {name} ago"
    return f"{past // 86400} d ago"


def _stamp(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _explain(word: str) -> str:
    """The sentence of a reason; empty for a word that is none."""
    try:
        return explain(Reason(word))
    except ValueError:
        return ""
