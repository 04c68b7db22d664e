"""A program in words, one line a node: what `inspect` shows of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from edgefleet_contract.graph import Node, Program


def program_lines(program: Program) -> Iterator[str]:
    """Each node with what it takes, gives, is set to and reads; then what a sequence carries on."""
    for i, node in enumerate(program.nodes, 1):
        yield f"{i}. {_node(node)}"
    for pair in program.state:
        yield f"state: {pair.output} goes in next as {pair.input}"
    if program.hidden_state:
        yield "state: kept inside of the model from one call to the next"


def _node(node: Node) -> str:
    settings = ", ".join(f"{name} {_value(value)}" for name, value in sorted(node.settings.items()))
    told = ", ".join(part for part in (settings, f"by {node.file}" if node.file else "") if part)
    line = f"{', '.join(node.inputs)} -> {node.op} -> {', '.join(node.outputs)}"
    return f"{line}  ({told})" if told else line


def _value(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
