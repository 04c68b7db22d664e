"""Real models on the device's runtime, against the plain runtimes: `python -m tests.models`."""
