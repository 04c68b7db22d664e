"""`policy.toml`: how devices are to go about a rollout, in the wire's own words [wire-4.6].

What the command line says wins over the file. Unknown keys are refused by name.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from edgefleet_contract import codec
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.order_policy import SLOWEST, Policy


def check_rate(policy: Policy) -> None:
    """Nothing, if a device can live with how fast it may fetch [wire-5.9].

    Raises:
        Malformed: it cannot.
    """
    if 0 < policy.max_bytes_per_s < SLOWEST:
        raise Malformed(
            f"policy: max_bytes_per_s is {policy.max_bytes_per_s}",
            hint=f"0 for no cap, else at least {SLOWEST}",
        )


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
        found = codec.decode(Policy, value, what=str(path or "policy"))
        check_rate(found)
        return codec.encode(found)
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OperatorError(f"{path} is not TOML: {error}") from None
    except Malformed as error:
        raise OperatorError(error.message, hint=error.hint) from None
