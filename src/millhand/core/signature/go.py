"""Signatures of Go scripts: `func main(name string, n int) (T, error)`, by tree-sitter.

Errors in the bodies of functions are left to the compiler, which tells them better.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tree_sitter import Node

from millhand.core.errors import BadRequestError
from millhand.core.signature.model import (
    MissingMainError,
    Param,
    Signature,
    Type,
    TypeReader,
    known_type,
    list_of,
    mapping_of,
    object_of,
    resource,
)
from millhand.core.signature.tree import child, first_error, named, read_go, text

_INTEGERS = {
    "int",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "byte",
    "rune",
    "uintptr",
}
_SIMPLE = {
    **dict.fromkeys(_INTEGERS, "int"), "string": "str", "bool": "bool", "float32": "float", "float64": "float",
    "any": "any", "time.Time": "datetime", "error": "str", "json.RawMessage": "any",
}  # fmt: skip


def parse(code: str, entrypoint: str) -> Signature:
    """Return the signature of a Go function; raises BadRequestError."""
    root = read_go(code)
    functions = {text(child(node, "name")): node for node in named(root) if node.type == "function_declaration"}
    main = functions.get(entrypoint)
    if main is None or child(main, "parameters") is None:
        raise _missing(root, entrypoint, list(functions))
    if child(main, "type_parameters") is not None:
        raise BadRequestError(f"the go script's function {entrypoint} can't have type parameters; give it plain types")
    parameters, result = child(main, "parameters"), child(main, "result")
    if any(part is not None and part.has_error for part in (parameters, result)):
        raise _syntax(main)
    return Signature(
        params=_params(parameters, _Types(root)),
        entrypoint=entrypoint,
        has_preprocessor="preprocessor" in functions,
        results=_results(result),
    )


def _missing(root: Node, entrypoint: str, functions: list[str]) -> BadRequestError:
    if root.has_error:
        return _syntax(root)
    hint = f"write `func {entrypoint}(…) (any, error) {{ … }}`"
    return MissingMainError("go", entrypoint, functions=functions, hint=hint)


def _syntax(root: Node) -> BadRequestError:
    return BadRequestError(f"the go script has a syntax error on line {first_error(root)}")


def _params(parameters: Node | None, types: _Types) -> tuple[Param, ...]:
    found = []
    for node in named(parameters):
        kind = child(node, "type")
        names = [text(name) for name in node.children_by_field_name("name")]
        if not names or kind is None:
            raise BadRequestError(f"the go script's parameter `{text(node)}` has no name; write `name {text(node)}`")
        known, type_text = types.read(kind), text(kind)
        if node.type == "variadic_parameter_declaration":
            known, type_text = list_of(known), f"...{type_text}"
        found += [_param(name, known, type_text) for name in names]
    return tuple(found)


def _param(name: str, known: Type, type_text: str) -> Param:
    return Param(name=name, kind=known.kind, schema=known.schema, type_text=type_text, optional=known.optional)


def _results(result: Node | None) -> tuple[str, ...]:
    if result is None:
        return ()
    if result.type != "parameter_list":
        return (text(result),)
    return tuple(text(child(node, "type")) for node in named(result) for _ in range(_n_names(node)))


def _n_names(node: Node) -> int:
    return max(1, len(node.children_by_field_name("name")))


class _Types(TypeReader):
    """Reads types, with the type declarations of the file at hand."""

    def __init__(self, root: Node) -> None:
        super().__init__()
        specs = [spec for node in named(root) if node.type == "type_declaration" for spec in named(node)]
        self._declared = {text(child(spec, "name")): child(spec, "type") for spec in specs}
        self._readers: dict[str, Callable[[Node], Type]] = {
            "type_identifier": lambda node: self._named(text(node)),
            "qualified_type": lambda node: self._named(text(node)),
            "generic_type": lambda node: self._named(text(child(node, "type"))),
            "slice_type": self._slice,
            "array_type": self._slice,
            "map_type": self._map,
            "struct_type": self._struct,
            "pointer_type": self._pointer,
            "parenthesized_type": lambda node: self.read(named(node)[0]),
        }

    def read(self, node: Node | None) -> Type:
        """Return the type that a node stands for; what can't be understood is of any type."""
        reader = self._readers.get(node.type) if node is not None else None
        return known_type("any") if node is None or reader is None else reader(node)

    def _named(self, name: str) -> Type:
        if name in self._declared:
            return self.unfold(name, lambda: self.read(self._declared[name]))
        return known_type(_SIMPLE[name]) if name in _SIMPLE else resource(name.rsplit(".", 1)[-1])

    def _slice(self, node: Node) -> Type:
        item = child(node, "element")
        if text(item) in ("byte", "uint8"):  # encoding/json writes bytes as base64
            return known_type("bytes")
        return list_of(self.read(item))

    def _map(self, node: Node) -> Type:
        return mapping_of(self.read(child(node, "value")))

    def _pointer(self, node: Node) -> Type:
        known = self.read(named(node)[0])
        return Type(kind=known.kind, schema=known.schema, optional=True)

    def _struct(self, node: Node) -> Type:
        fields: dict[str, Type] = {}
        may_miss = set()
        for field in named(named(node)[0]):
            known = self.read(child(field, "type"))
            for name in field.children_by_field_name("name"):
                key, omitted = _json_name(text(child(field, "tag")), text(name))
                if key != "-":
                    fields[key] = known
                    may_miss |= {key} if omitted else set()
        return object_of(fields, defaulted=frozenset(may_miss))


def _json_name(tag: str, name: str) -> tuple[str, bool]:
    """Return the key of a field in JSON, and whether it may be missing."""
    match = re.search(r'json:"([^",]*)([^"]*)"', tag)
    return (match[1] or name, "omit" in match[2]) if match else (name, False)
