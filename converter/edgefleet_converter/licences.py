"""Whether a text is spelled as an SPDX licence expression (SPDX 2.3, annex D).

The grammar is checked, not the list of licences: that one grows every month.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\s*(?:(\()|(\))|(AND|OR|WITH)\b|([A-Za-z0-9][A-Za-z0-9.:-]*\+?))")


def is_licence_expression(text: str) -> bool:
    """Whether `text` keeps the grammar.

    >>> is_licence_expression("Apache-2.0 AND (MIT OR LicenseRef-Ours)")
    True
    >>> is_licence_expression("Apache License, Version 2.0")
    False
    """
    depth, at, wants_operand = 0, 0, True
    text = text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            return False
        opens, closes, joins, _ = found.groups()
        if wants_operand != (joins is None and closes is None):
            return False
        depth += bool(opens) - bool(closes)
        if depth < 0:
            return False
        if joins or not (opens or closes):
            wants_operand = bool(joins)
        at = found.end()
    return depth == 0 and not wants_operand
