"""What went wrong with each source of one blob, and what the whole is called when all failed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from edgefleet_agent.ports import AllowanceSpent
from edgefleet_contract.errors import PeerError, TransientError
from edgefleet_contract.reasons import Reason

log = logging.getLogger(__name__)


class Trouble:
    """Gathers what sources did; `without` are those that do not have the blob."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._refusals: list[PeerError] = []
        self._passing: list[str] = []  # not the errors: they hold frames, and these sockets
        self._waits: list[float] = []
        self._spent: str = ""
        self.without: set[str] = set()

    @contextmanager
    def at(self, source: str, *, is_copy: bool = False) -> Iterator[None]:
        """Whatever the block raises about a source is noted, and is no reason to stop.

        A copy (a stick, a cache) with wrong bytes says nothing about the blob: it does not have it.
        """
        try:
            yield
        except PeerError as error:
            if is_copy and error.reason is not Reason.NOT_FOUND:
                self.without.add(source)
                self.passing(source, TransientError(error.message))
                return
            self._refusals.append(error)
            if error.reason is Reason.NOT_FOUND:
                self.without.add(source)
                log.debug("%s: %s", source, error.message)
            else:
                log.warning("%s: %s", source, error.message)
        except AllowanceSpent as error:
            self._spent = error.message  # other roads may be free
        except TransientError as error:
            self.passing(source, error)

    def passing(self, source: str, error: TransientError) -> None:
        """A source that cannot be used now."""
        self._passing.append(error.message)
        if error.retry_after_s:
            self._waits.append(error.retry_after_s)
        log.info("%s from %s: %s", self._what, source, error.message)

    def verdict(self) -> PeerError | TransientError:
        """Bad bytes first; then a passing trouble, which waiting may cure; then what is missing."""
        wrong = [error for error in self._refusals if error.reason is not Reason.NOT_FOUND]
        if wrong:
            return wrong[-1]
        if self._spent:
            return AllowanceSpent(self._spent)
        if self._passing:
            message = f"{self._what}: {self._passing[-1]}"
            return TransientError(message, retry_after_s=min(self._waits, default=None))
        if self._refusals:
            return self._refusals[-1]
        return TransientError(f"{self._what}: there is no source to ask")
