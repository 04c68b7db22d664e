"""How blobs come to a device: one core that checks every chunk, and a transport for each road."""
