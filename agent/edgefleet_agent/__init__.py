"""The device: verify, swap, serve, report; survives power loss."""
