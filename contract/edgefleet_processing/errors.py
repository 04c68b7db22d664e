"""What goes wrong in a program while it runs. What is wrong with it at load is `Malformed`."""

from __future__ import annotations


class BadInput(Exception):
    """A step cannot work on what it was given; the message says what was found."""


class StepFailed(Exception):
    """A node of a program failed. `input_is_to_blame` where no model ran before it: then what it
    got is what the client sent, and steps made of that.
    """

    def __init__(self, message: str, *, input_is_to_blame: bool) -> None:
        super().__init__(message)
        self.input_is_to_blame = input_is_to_blame
