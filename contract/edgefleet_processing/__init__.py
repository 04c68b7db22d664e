"""What a program does beside running models: steps on tensors, and the graph that joins them.

Shared by the device, which runs programs, and the desk, which makes their golden vectors: one code,
so that both mean the same by a step. NumPy is all that it needs. Nothing here reads a disk, a clock
or a network; a program is data, and can do what `table.STEPS` does and nothing else.

Axis 0 is the batch axis of every tensor: row i of what a step gives depends on row i of what it
takes, and on nothing else. What the steps mean is said in docs/spec/bundle.md, section 9.
"""

from edgefleet_processing.errors import BadInput, StepFailed
from edgefleet_processing.graph import Graph, prepare

__all__ = ["BadInput", "Graph", "StepFailed", "prepare"]
