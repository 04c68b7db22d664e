"""BentoML: one service, one worker. Bytes come as a request's body, which it puts in a file."""

import os
import sys
from pathlib import Path

import bentoml
import numpy as np
from numpy.typing import NDArray
from session import open_session


@bentoml.service(workers=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Served:
    """`predict` takes `{"x": [[…]]}`, `predict_raw` little-endian float32."""

    def __init__(self) -> None:
        self._session = open_session()

    @bentoml.api
    async def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._session.run(["y"], {"x": x})[0]

    @bentoml.api
    async def predict_raw(self, x: Path, /) -> NDArray[np.float32]:
        row = np.fromfile(x, np.float32).reshape(1, -1)
        return self._session.run(["y"], {"x": row})[0]


if __name__ == "__main__":
    from bentoml_cli.cli import cli

    sys.argv = ["bentoml", "serve", "bentoml_peer:Served"]
    sys.argv += ["--host", "127.0.0.1", "--port", os.environ["PORT"]]
    cli()
