"""The schema's history; the store runs it on start."""
