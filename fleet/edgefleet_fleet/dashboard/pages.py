"""Placeholder of the page routes."""

from fastapi import FastAPI

from edgefleet_fleet.api import Services


def install(app: FastAPI, services: Services) -> None:
    """Add the pages to the application."""
