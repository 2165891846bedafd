"""Source as a syntax tree, by tree-sitter, and the few questions that readers of signatures and imports ask of it."""

from __future__ import annotations

from collections.abc import Iterator

import tree_sitter_go
import tree_sitter_typescript
from tree_sitter import Language, Node, Parser

_TYPESCRIPT = Language(tree_sitter_typescript.language_typescript())
_GO = Language(tree_sitter_go.language())


def read_typescript(code: str) -> Node:
    """Return the root of a TypeScript or JavaScript tree; it holds ERROR nodes where the code is not understood."""
    return Parser(_TYPESCRIPT).parse(code.encode("utf-8", "replace")).root_node


def read_go(code: str) -> Node:
    """Return the root of a Go tree; it holds ERROR nodes where the code is not understood."""
    return Parser(_GO).parse(code.encode("utf-8", "replace")).root_node


def text(node: Node | None) -> str:
    """Return the source of a node."""
    return node.text.decode("utf-8", "replace") if node is not None and node.text else ""


def child(node: Node | None, field: str) -> Node | None:
    """Return the child in this field."""
    return node.child_by_field_name(field) if node is not None else None


def named(node: Node | None) -> list[Node]:
    """Return the children that carry meaning: no punctuation, no comments."""
    return [kid for kid in node.named_children if kid.type != "comment"] if node is not None else []


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all below it, in the order of the source."""
    stack = [node]
    while stack:
        found = stack.pop()
        yield found
        stack.extend(reversed(found.children))


def first_error(root: Node) -> int | None:
    """Return the line, from 1, of the first piece that can't be understood; None where there is none."""
    if not root.has_error:
        return None
    return next((node.start_point.row + 1 for node in walk(root) if node.is_error or node.is_missing), None)
