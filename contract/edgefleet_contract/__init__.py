"""edgefleet: what the desk, the fleet and the device agree on. Imports none of them."""

__version__ = "0.1.0"
