"""Source as a syntax tree, by tree-sitter, and the few questions that readers of signatures and imports ask of it."""

from __future__ import annotations

from collections.abc import Iterator

import tree_sitter_go
import tree_sitter_typescript
from tree_sitter import Language, Node, Parser, Point

from millhand.core.errors import BadRequestError

_TYPESCRIPT = Language(tree_sitter_typescript.language_typescript())
# Repairing nonsense takes the parser time that grows with the square of its length; code takes a step for 100 bytes.
_MIN_STEPS, _BYTES_PER_STEP = 10_000, 20
_CHUNK = 1 << 16
_GO = Language(tree_sitter_go.language())


def read_typescript(code: str) -> Node:
    """Return the root of a TypeScript or JavaScript tree; it holds ERROR nodes where the code is not understood.

    Raises BadRequestError for text that would take for ever to make sense of.
    """
    return _read(_TYPESCRIPT, code)


def read_go(code: str) -> Node:
    """Return the root of a Go tree, as `read_typescript` does."""
    return _read(_GO, code)


def _read(language: Language, code: str) -> Node:
    source = code.encode("utf-8", "replace")
    steps_left = _MIN_STEPS + len(source) // _BYTES_PER_STEP

    def read(offset: int, _point: Point) -> bytes:
        return source[offset : offset + _CHUNK]

    def give_up(_offset: int, _has_error: bool) -> bool:  # noqa: FBT001 — tree-sitter calls it so
        nonlocal steps_left
        steps_left -= 1
        return steps_left < 0

    try:
        return Parser(language).parse(read, progress_callback=give_up).root_node
    except ValueError:
        raise BadRequestError("the code can't be read: it has too many errors to make sense of") from None


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
