"""LitServe: one API server, one worker, its quick queue. Bytes come as an uploaded file."""

import os

import litserve
import numpy as np
from fastapi import Request
from session import open_session


class Served(litserve.LitAPI):
    """Takes `{"x": [[…]]}`, or a form whose file `x` holds little-endian float32."""

    def setup(self, device: str) -> None:  # noqa: ARG002  # its signature
        self._session = open_session()

    def decode_request(self, request: Request):
        x = request["x"]
        if isinstance(x, list):
            return np.array(x, np.float32)
        return np.frombuffer(x.file.read(), np.float32).reshape(1, -1)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self._session.run(["y"], {"x": x})[0]

    def encode_response(self, y: np.ndarray) -> dict:
        return {"y": y.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(
        Served(), accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        num_api_servers=1,
        log_level="error",
        generate_client_file=False,
        access_log=False,
    )
