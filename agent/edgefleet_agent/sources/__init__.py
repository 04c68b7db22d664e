"""Sources and sinks beside HTTP: where inputs come from by themselves, and where results go.

A source runs in a process of its own, asks the agent's Unix socket, and hands results to its sink.
`plugin.py` is what a plug-in implements; `process.py` is the agent's hold on one of them.
"""
