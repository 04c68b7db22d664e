"""How routes give lists: `limit` and `after` are asked for, `next` and a Link header answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Query, Request, Response

from edgefleet_fleet.paging import (
    DEFAULT_LIMIT,
    MAX_CURSOR,
    MAX_LIMIT,
    Key,
    Page,
    parse_cursor,
)


class Pages:
    """What a request asks for of a list: a dependency."""

    def __init__(
        self,
        request: Request,
        response: Response,
        limit: Annotated[
            int, Query(ge=1, le=MAX_LIMIT, description="How many at most.")
        ] = DEFAULT_LIMIT,
        after: Annotated[
            str,
            Query(max_length=MAX_CURSOR, description="`next` of the page before."),
        ] = "",
    ) -> None:
        self.limit = limit
        self._after = after
        self._request, self._response = request, response

    def after(self, noun: str, *kinds: type[int] | type[str]) -> Key | None:
        """The key behind which the page begins; None for the first page.

        Raises:
            Malformed: `after` is no cursor of this list.
        """
        return parse_cursor(noun, self._after, *kinds) if self._after else None

    def before(self, noun: str) -> int | None:
        """`after` for a list of falling numbers."""
        key = self.after(noun, int)
        return int(key[0]) if key is not None else None

    def answer(
        self, noun: str, page: Page[Any], shown: Sequence[Any], **more: Any
    ) -> dict[str, Any]:
        """The answer of a page: its rows as they are shown, and where the next one begins."""
        following = page.cursor(noun)
        if following is not None:
            asked = [
                (name, value)
                for name, value in self._request.query_params.multi_items()
                if name not in ("after", "limit")
            ]
            query = urlencode([*asked, ("limit", self.limit), ("after", following)])
            path = self._request.url.path
            self._response.headers["Link"] = f'<{path}?{query}>; rel="next"'
        return {**more, noun: list(shown), "next": following}


ThePages = Annotated[Pages, Depends()]
