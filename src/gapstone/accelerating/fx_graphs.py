"""A torch.fx graph names the functions it calls: another name, and the code is generated anew."""

from typing import Any

from torch.fx import GraphModule


def renamed(module: GraphModule, names: dict[Any, Any]) -> list[str]:
    """Put the functions that are keys for those that are values; the names of what was replaced."""
    found = [node for node in module.graph.nodes if node.op == "call_function" and node.target in names]
    for node in found:
        node.target = names[node.target]
    if found:
        module.recompile()
    return [node.name for node in found]


def calls(module: GraphModule, functions: dict[Any, Any]) -> list[str]:
    return [node.name for node in module.graph.nodes if node.op == "call_function" and node.target in functions]
