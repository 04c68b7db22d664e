"""KServe's Python model server: v2 and its binary tensors, one process, no gRPC, no latency log."""

import os
import sys

sys.argv = sys.argv[:1]  # it reads the command line when it is imported

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer  # noqa: E402
from session import open_session  # noqa: E402


class Served(Model):
    """One input, one output, both FP32."""

    def load(self) -> bool:
        self._session = open_session()
        self.ready = True
        return True

    def predict(self, payload: InferRequest, *_: object, **__: object) -> object:
        (y,) = self._session.run(["y"], {"x": payload.inputs[0].as_numpy()})
        binary = payload.use_binary_outputs
        output = InferOutput("y", list(y.shape), "FP32")
        output.set_data_from_numpy(y, binary_data=binary)
        return InferResponse(
            response_id=payload.id or "0",
            model_name=self.name,
            infer_outputs=[output],
            use_binary_outputs=binary,
        )


if __name__ == "__main__":
    served = Served("model")
    served.load()
    ModelServer(
        http_port=int(os.environ["PORT"]),
        workers=1,
        enable_grpc=False,
        enable_latency_logging=False,
    ).start([served])
