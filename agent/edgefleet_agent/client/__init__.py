"""Ask a running agent from Python or a shell: metadata, readiness, inference. Spec: [api-6].

`Client` and `AsyncClient` have the same words. What they say and how they read answers is in
`steps.py`, without I/O; each of them only carries calls to the agent.
"""

from edgefleet_agent.client.aio import AsyncClient
from edgefleet_agent.client.credentials import Credentials
from edgefleet_agent.client.messages import Metadata, ModelState
from edgefleet_agent.client.sync import Client

__all__ = ["AsyncClient", "Client", "Credentials", "Metadata", "ModelState"]
