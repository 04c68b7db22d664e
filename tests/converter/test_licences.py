from __future__ import annotations

import pytest

from edgefleet_converter.licences import is_licence_expression


@pytest.mark.parametrize(
    "text",
    [
        "Apache-2.0",
        "GPL-2.0+",
        "MIT OR Apache-2.0",
        "GPL-2.0-only WITH Classpath-exception-2.0",
        "(MIT AND (BSD-3-Clause OR LicenseRef-Ours)) AND CC-BY-4.0",
        "DocumentRef-a:LicenseRef-b",
    ],
)
def test_what_keeps_the_grammar_is_a_licence_expression(text: str) -> None:
    assert is_licence_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "Apache License, Version 2.0", "MIT Apache-2.0", "AND MIT", "MIT AND"),
        *("(MIT", "MIT)", "()", "MIT ()", ")MIT(", "MIT OR OR MIT", "-MIT", "MIT/X11", "MIT\x00"),
    ],
)
def test_what_does_not_is_none(text: str) -> None:
    assert not is_licence_expression(text)
