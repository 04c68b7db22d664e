"""The one model that every peer serves, opened as ours is: one thread, no spinning.

What lies in this folder runs in a peer's own environment and imports nothing of this project.
`MODEL` in the environment is the file, `PORT` where to listen.
"""

import os

import onnxruntime


def open_session() -> onnxruntime.InferenceSession:
    """The file in `MODEL`, with the options of `edgefleet_agent.runtime.onnx_engine`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
    )
