"""The JSON values of TypeScript literals, read without running anything."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

from msgspec import UNSET
from tree_sitter import Node

from millhand.core.signature.model import json_value
from millhand.core.signature.tree import child, named, text

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}
_BY_NUMBER = re.compile(r"[ux]\{?([0-9A-Fa-f]{1,8})\}?")
_WRAPPERS = ("as_expression", "satisfies_expression", "parenthesized_expression")


def unwrapped(node: Node | None) -> Node | None:
    """Return the expression inside of parentheses, `as` and `satisfies`."""
    while node is not None and node.type in _WRAPPERS:
        node = next(iter(named(node)), None)
    return node


def constant(node: Node | None) -> Any:
    """Return the JSON value of a literal, or UNSET."""
    return json_value(_constant(node))


def _constant(node: Node | None) -> Any:
    literal = unwrapped(node)
    read = _READERS.get(literal.type) if literal is not None else None
    return UNSET if literal is None or read is None else read(literal)


def _string(node: Node) -> str:
    joined = "".join(_unescape(kid) for kid in named(node))
    return joined.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # \\ud83d\\ude00 is one character


def _template(node: Node) -> Any:
    plain = all(kid.type != "template_substitution" for kid in named(node))
    return text(node)[1:-1] if plain else UNSET


def _negative(node: Node) -> Any:
    value = _constant(child(node, "argument"))
    return -value if text(child(node, "operator")) == "-" and isinstance(value, int | float) else UNSET


def _array(node: Node) -> Any:
    values = [_constant(kid) for kid in named(node)]
    return UNSET if UNSET in values else values


def _object(node: Node) -> Any:
    found = {}
    for pair in named(node):
        key, value = child(pair, "key"), _constant(child(pair, "value"))
        if pair.type != "pair" or key is None or key.type == "computed_property_name" or value is UNSET:
            return UNSET
        found[key_name(key)] = value
    return found


def key_name(node: Node) -> str:
    """Return the name that a key of an object or a property of a type has."""
    return str(_constant(node)) if node.type in ("string", "number") else text(node)


def _number(node: Node) -> Any:
    plain = text(node).replace("_", "")
    try:
        return int(plain, 0) if plain.isdigit() or plain[:2].lower() in ("0x", "0o", "0b") else float(plain)
    except ValueError:
        return UNSET


def _unescape(node: Node) -> str:
    source = text(node)
    if node.type != "escape_sequence":
        return source
    body = source[1:]
    if match := _BY_NUMBER.fullmatch(body):
        number = int(match[1], 16)
        return chr(number) if number <= sys.maxunicode else source
    return _ESCAPES.get(body, body.strip("\r\n"))


_READERS: dict[str, Callable[[Node], Any]] = {
    "string": _string,
    "template_string": _template,
    "number": _number,
    "true": lambda _: True,
    "false": lambda _: False,
    "null": lambda _: None,
    "unary_expression": _negative,
    "array": _array,
    "object": _object,
}
