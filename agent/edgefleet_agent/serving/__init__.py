"""Predictions over HTTP: the front process, its routes, and the protocols that it speaks."""
