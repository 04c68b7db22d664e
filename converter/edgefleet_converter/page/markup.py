"""HTML and SVG as values: a text is escaped unless an element of ours made it.

What a publisher or a model wrote arrives as `str` and cannot become markup; only `el` makes `Html`.
Characters that act on a reader's screen (controls, overrides of direction) are replaced.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Final, TypeAlias

from edgefleet_contract.cards import is_plain


class Html(str):
    """Markup that is safe to join."""

    __slots__ = ()


Child: TypeAlias = "str | Html | Iterable[Child] | None"

_VOID: Final = frozenset({"meta", "br"})


def el(tag: str, *children: Child, **attributes: str | float | None) -> Html:
    """An element. `class_` is written `class`, `font_size` `font-size`; None is left out.

    >>> el("a", "<b>", class_='x"')
    '<a class="x&quot;">&lt;b&gt;</a>'
    """
    told = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_safe(_text(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Html(f"<{tag}{told}>")
    return Html(f"<{tag}{told}>{join(children)}</{tag}>")


def join(children: Child) -> Html:
    """Children one after another; what is no `Html` is escaped."""
    if children is None:
        return Html("")
    if isinstance(children, Html):
        return children
    if isinstance(children, str):
        return Html(_safe(children))
    return Html("".join(join(child) for child in children))


def plain(text: str) -> str:
    """A text with what would act on a screen replaced."""
    return text if is_plain(text) else "".join(c if is_plain(c) else "\ufffd" for c in text)


def _safe(text: str) -> str:
    return html.escape(plain(text), quote=True)


def _text(value: str | float) -> str:
    """An attribute's value; a coordinate has two decimals at most."""
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
