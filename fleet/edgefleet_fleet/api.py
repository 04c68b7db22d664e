"""The HTTP service: puts the routes together. What each route does stands in `api_*.py`.

Every route declares the permission that it needs, or is named in `OPEN` (`api_common.py`). A test
holds routes to that.
"""

from __future__ import annotations

from fastapi import FastAPI

from edgefleet_contract import __version__
from edgefleet_fleet import (
    api_bundles,
    api_commands,
    api_devices,
    api_doctor,
    api_export,
    api_fleets,
    api_groups,
    api_public,
    api_rollouts,
    api_stream,
    api_trust,
    api_users,
    api_webhooks,
    openapi,
    problems,
)
from edgefleet_fleet.api_answers import Answers
from edgefleet_fleet.dashboard import pages
from edgefleet_fleet.services import Services


def create_app(services: Services) -> FastAPI:
    """The application of one control room."""
    app = FastAPI(
        title="edgefleet control room",
        version=__version__,
        description="Who gets which model, when, and when to stop.",
        docs_url=None,  # its page loads scripts from a CDN; /openapi.json is served
        redoc_url=None,
        generate_unique_id_function=openapi.operation_id,
    )
    app.state.services = services
    app.add_middleware(Answers, store=services.room.store, threads=services.room.threads)
    problems.install(app)
    openapi.install(app, services)
    for module in (
        api_public,
        api_users,
        api_trust,
        api_devices,
        api_doctor,
        api_export,
        api_groups,
        api_commands,
        api_bundles,
        api_rollouts,
        api_stream,
        api_webhooks,
        api_fleets,
    ):
        app.include_router(module.router)
    pages.install(app, services)
    return app
