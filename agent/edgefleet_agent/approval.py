"""Waiting for an operator: the fleet has this device's request, and nobody said yes or no yet.

Nothing of the wait is kept on the device: its key is, so the same request is made again after a
restart, and the fleet knows it. A fleet that goes away while somebody waits is asked again when it
is back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from edgefleet_contract.enrolment import EnrolPending, EnrolResponse
from edgefleet_contract.errors import TransientError, Unverified

Answer: TypeAlias = EnrolResponse | EnrolPending
Wait: TypeAlias = Callable[[EnrolPending, str], None]
"""Spends the time until the next try; the text says what was wrong with the last one."""


def await_answer(ask: Callable[[], Answer], wait: Wait, *, key_id: str) -> EnrolResponse:
    """Ask until there is an answer.

    Raises:
        Unverified: the fleet was asked for another key than this device's.
    """
    answer, trouble = ask(), ""
    while isinstance(answer, EnrolPending):
        if answer.key_id != key_id:
            raise Unverified(
                f"the fleet was asked for the key {answer.key_id[:16]}, ours is {key_id[:16]}",
                hint="somebody on the way changes what is said: do not approve that key",
            )
        wait(answer, trouble)
        try:
            answer, trouble = ask(), ""
        except TransientError as error:
            trouble = error.message
    return answer


def refuse_to_wait(pending: EnrolPending, _trouble: str) -> None:
    """What to say instead of waiting."""
    raise TransientError(
        f"{pending.device} waits for an operator's approval, with the key id {pending.key_id}",
        hint=f"{_command(pending)}; then run this again",
    )


@dataclass(slots=True)
class Patience:
    """Waits, and says for whom; nothing is said twice."""

    say: Callable[[str], None]
    sleep: Callable[[float], None]
    said: str | None = None

    def __call__(self, pending: EnrolPending, trouble: str) -> None:
        """Wait as long as the fleet asked for."""
        if self.said is None:
            self.say(f"{pending.device} waits for an operator's approval")
            self.say(f"key id: {pending.key_id}")
            self.say(f"hint: {_command(pending)}")
        elif trouble and trouble != self.said:
            self.say(f"{trouble}; still waiting")
        self.said = trouble
        self.sleep(pending.retry_after_s)


def _command(pending: EnrolPending) -> str:
    return f"fleet devices approve {pending.device} --key-id {pending.key_id[:16]}"
