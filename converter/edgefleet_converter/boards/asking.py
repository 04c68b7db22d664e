"""Asks every board of a recipe: one job for each, and what they said, in the recipe's order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import Signer
from edgefleet_contract.measuring import MeasureReport
from edgefleet_converter.boards.figures import Heard, heard, name_board
from edgefleet_converter.boards.here import measure_here
from edgefleet_converter.boards.packing import Pack
from edgefleet_converter.boards.places import Here, Ssh, kind_of, parse_place
from edgefleet_converter.recipe import Measure, Recipe, Worker


@dataclass(frozen=True, slots=True)
class Asker:
    """What is asked of whom. `key` signs jobs for boards whose agents run."""

    wish: Measure
    worker: Worker
    folder: Path
    key: Signer | None = None

    def ask(self, pack: Pack, told: Callable[[str], None]) -> tuple[Heard, ...]:
        """What each board says of the same models.

        Raises:
            OperatorError, TransientError, Unverified: a board cannot be asked; see `ssh`, `https`.
        """
        found: list[Heard] = []
        for text in self.wish.devices:
            way = kind_of(text)
            told(f"measuring on {text.partition('#')[0]}")
            report = self._ask(text, pack, told)
            name = name_board(report.board, way, (one.report.name for one in found))
            found.append(heard(report, name=name, way=way))
        return tuple(found)

    def _ask(self, text: str, pack: Pack, told: Callable[[str], None]) -> MeasureReport:
        place = parse_place(text)
        if isinstance(place, Here):
            return measure_here(pack.job(self.wish), pack.places, self.worker, told)
        if isinstance(place, Ssh):
            from edgefleet_converter.boards.ssh import measure_by_ssh

            return measure_by_ssh(place, pack.job(self.wish), pack.places, told)
        from edgefleet_converter.boards.https import Access, measure_by_https

        access = Access(
            self._token(), self.key, self.folder / self.wish.ca if self.wish.ca else None
        )
        return measure_by_https(
            place, lambda challenge: pack.job(self.wish, challenge=challenge), pack.places, access
        )

    def _token(self) -> str:
        if not self.wish.token_file:
            return ""
        path = self.folder / self.wish.token_file
        try:
            lines = path.read_text("utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise OperatorError(f"cannot read the token in {path}: {error}") from None
        if len(lines) != 1 or not lines[0].isascii():
            raise OperatorError(
                f"{path} holds no token", hint="edge-agent token add NAME --measure"
            )
        return lines[0]


def asker_of(recipe: Recipe, key: Signer | None) -> Asker | None:
    """Who asks the boards of a recipe; None where it names none."""
    if not recipe.measure.devices:
        return None
    return Asker(recipe.measure, recipe.worker, recipe.path("."), key)
