"""What all drawings of the page share: the frame, and names that fit."""

from __future__ import annotations

from edgefleet_converter.page.markup import Child, Html, el

WIDTH = 460.0
"""Of a drawing over half of the page, in pixels of its own."""


def drawing(label: str, height: float, *children: Child, width: float = WIDTH) -> Html:
    """An SVG that fills its place, up to a third more than its own size."""
    return el(
        "svg",
        children,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=label,
        style=f"max-width:{1.3 * width:g}px",
    )


def shortened(name: str, most: int) -> str:
    """A name with its middle left out, where it is longer."""
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[: most - 1 - half]}…{name[-half:]}"
