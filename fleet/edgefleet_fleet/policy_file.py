"""`policy.toml`: how devices are to go about a rollout, in the wire's own words [wire-4.6].

What the command line says wins over the file. Unknown keys are refused by name.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from edgefleet_contract import codec
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.order_policy import Policy


def read_policy(path: Path | None, **flags: int | bool | None) -> Json:
    """The policy of a file and of the flags that were given (not None), as the API takes it.

    Raises:
        OperatorError: the file cannot be read, or holds what is not known or makes no sense.
    """
    value: dict[str, Json] = {}
    try:
        if path is not None:
            value = tomllib.loads(path.read_text("utf-8"))
        value |= {name: flag for name, flag in flags.items() if flag is not None}
        return codec.encode(codec.decode(Policy, value, what=str(path or "policy")))
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OperatorError(f"{path} is not TOML: {error}") from None
    except Malformed as error:
        raise OperatorError(error.message, hint=error.hint) from None
