"""All that is answered: the doors of every protocol, and the page that lists them. [api-5.4]"""

from __future__ import annotations

from typing import Final

from edgefleet_agent.serving import oip_v2, openapi, pages, tensorflow_v1
from edgefleet_agent.serving.answer import Answer, give
from edgefleet_agent.serving.door import Asked, Door, Doors, Measure

MEASURE: Final = "/edgefleet/measure"


def listing(asked: Asked) -> Answer:  # noqa: ARG001  # a page's signature
    """This table, as OpenAPI has it."""
    return give(openapi.document(DOORS.all))


DOORS: Final = Doors(
    (
        *tensorflow_v1.DOORS,
        *oip_v2.DOORS,
        *pages.DOORS,
        Door("GET", MEASURE, "What this board is, and the challenge for a job", Measure(False)),
        Door("POST", MEASURE, "Measure the candidates of a signed job", Measure(True)),
        Door("GET", "/openapi.json", "This description", listing),
    )
)
