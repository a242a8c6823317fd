"""`key.path=value` from the command line, written into the tree before it is bound."""

from __future__ import annotations

from reid_cckd.config.tree import Fault, Node, parse_tree


def apply_override(tree: Node, override: str, faults: list[Fault], source: str = "command line") -> None:
    """Set one key; the value is YAML. A key that does not exist is found out when the tree is bound."""
    key, equals, text = override.partition("=")
    where = f"{source}, {override}"
    if not equals or not key:
        faults.append(Fault(where, "", "expected key=value, such as optim.lr=1e-3"))
        return
    *parents, last = key.split(".")
    node = _descend(tree, parents, where)
    value = parse_tree(text, where, faults) if text.strip() else Node(None, where)
    if node is not None and isinstance(node.value, dict):
        node.value[last] = value
    elif node is not None and last.isdigit() and int(last) < len(node.value):
        node.value[int(last)] = value
    else:
        faults.append(Fault(where, key, "this place holds no such key; entries of a list are counted from 0"))


def child_of(node: Node, name: str) -> Node | None:
    """The child of a section by key, or of a list by position."""
    if isinstance(node.value, dict):
        return node.value.get(name)
    if isinstance(node.value, list) and name.isdigit() and int(name) < len(node.value):
        child: Node = node.value[int(name)]
        return child
    return None


def place_of(tree: Node, key: str, source: str) -> str:
    """Where ``key`` was written, or its nearest written ancestor."""
    node = tree
    for name in key.split("."):
        child = child_of(node, name)
        if child is None:
            break
        node = child
    return node.where or source


def _descend(node: Node, names: list[str], where: str) -> Node | None:
    """The section or list at the path, making sections that the file leaves out."""
    for name in names:
        child = child_of(node, name)
        if (child is None or child.value is None) and isinstance(node.value, dict):
            child = node.value[name] = Node({}, where)
        if child is None or not isinstance(child.value, dict | list):
            return None
        node = child
    return node
