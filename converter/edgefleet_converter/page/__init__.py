"""The report of a bundle as one page of HTML: no script, no request, the same bytes each time."""

from edgefleet_converter.page.page import Shown, render_page, render_sweep_page

__all__ = ["Shown", "render_page", "render_sweep_page"]
