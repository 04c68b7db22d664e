"""What a publisher says of a model: the `[card]` of a recipe, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edgefleet_contract.cards import is_plain
from edgefleet_converter.licences import is_licence_expression

MAX_CARD: Final = 16_000


@dataclass(frozen=True, slots=True)
class Card:
    """What a publisher says of the model. `licence` is an SPDX expression; empty is not said."""

    description: str = ""
    task: str = ""
    licence: str = ""
    authors: tuple[str, ...] = ()
    training_data: str = ""
    intended_use: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()

    def texts(self) -> tuple[str, ...]:
        """Everything that it says."""
        one = (self.description, self.task, self.licence, self.training_data)
        return (*one, *self.authors, *self.intended_use, *self.limitations)


def card_checks(card: Card) -> tuple[tuple[str, bool], ...]:
    """What must hold of a card, each with whether it does."""
    texts = card.texts()
    return (
        (
            f"card.licence: {card.licence[:80]!r} is no SPDX expression, such as Apache-2.0",
            not card.licence or is_licence_expression(card.licence),
        ),
        (
            f"card: at most {MAX_CARD} characters together",
            sum(len(text) for text in texts) <= MAX_CARD,
        ),
        ("card: a text holds control characters", all(is_plain(text) for text in texts)),
    )
