"""MLServer: a custom runtime. Its REST door has no binary tensors; base64 is the nearest to it.

In one process (`parallel_workers` 0), which is its quickest way, and without gzip and metrics.
"""

import base64
import json
import os
import sys
from pathlib import Path

import numpy as np
from mlserver import MLModel
from mlserver.cli import main
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from session import open_session


class Served(MLModel):
    """Takes FP32 as a JSON list, or one base64 text of little-endian float32."""

    async def load(self) -> bool:
        self._session = open_session()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (tensor,) = payload.inputs
        if tensor.datatype == "BYTES":
            raw = base64.b64decode(tensor.data[0])
            x = np.frombuffer(raw, np.float32).reshape(1, -1)
        else:
            x = NumpyCodec.decode_input(tensor)
        (y,) = self._session.run(["y"], {"x": x})
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output(name="y", payload=y)]
        )


if __name__ == "__main__":
    folder = Path(os.environ["SCRATCH"])
    port = int(os.environ["PORT"])
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": int(os.environ["PORT_2"]),
        "metrics_endpoint": None,
        "parallel_workers": 0,
        "gzip_enabled": False,
        "debug": False,
        "use_structured_logging": False,
    }
    model = {"name": "model", "implementation": "mlserver_peer.Served"}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    sys.argv = ["mlserver", "start", str(folder)]
    main()
