"""Signatures of TypeScript and JavaScript scripts, by tree-sitter: an exported `main`, as a function or a constant.

Errors in the bodies of functions are left to the runtime's own compiler, whose grammar is always newer than ours; what
must be understood here is the head of the entry function.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import UNSET
from tree_sitter import Node

from millhand.core.errors import BadRequestError
from millhand.core.signature.literals import constant, key_name, unwrapped
from millhand.core.signature.model import (
    MissingMainError,
    Param,
    Signature,
    Type,
    TypeReader,
    enum_of,
    known_type,
    list_of,
    mapping_of,
    object_of,
    resource,
    type_of_value,
    union_of,
)
from millhand.core.signature.tree import child, first_error, named, read_typescript, text

_FUNCTIONS = {
    "function_declaration", "generator_function_declaration", "function_expression", "generator_function",
    "arrow_function", "function_signature",
}  # fmt: skip
_SIMPLE = {
    "string": "str", "number": "float", "boolean": "bool", "bigint": "int", "Date": "datetime", "any": "any",
    "unknown": "any", "never": "any", "object": "dict", "Object": "dict",
    "Resource": "dict", "String": "str", "Number": "float",
    "Boolean": "bool", "Email": "str", "Sql": "str", "Base64": "bytes", "Uint8Array": "bytes", "Buffer": "bytes",
}  # fmt: skip
_LISTS = {"Array", "ReadonlyArray", "Set", "ReadonlySet", "Iterable"}
_MAPPINGS = {"Record", "Map"}
_WRAPPERS = {"Partial", "Required", "Readonly", "NonNullable", "Awaited", "Promise"}


def parse(code: str, entrypoint: str) -> Signature:
    """Return the signature of an exported function; raises BadRequestError."""
    root = read_typescript(code)
    exports = _exports(root)
    main = exports.get(entrypoint) or (exports.get("default") if entrypoint == "main" else None)
    if main is None:
        raise _missing(root, entrypoint, [name for name in exports if name != "default"])
    parameters = child(main, "parameters")
    if parameters is not None and parameters.has_error:
        raise _syntax(main)
    return Signature(
        params=_params(main, parameters, _Types(root)),
        entrypoint=entrypoint,
        is_async=any(kid.type == "async" for kid in main.children),
        has_preprocessor="preprocessor" in exports,
    )


def _missing(root: Node, entrypoint: str, exports: list[str]) -> BadRequestError:
    if root.has_error:
        return _syntax(root)
    exists = entrypoint in _functions(root)
    hint = (
        f"it is there but not exported: write `export` before `function {entrypoint}`"
        if exists
        else f"write `export async function {entrypoint}(…) {{ … }}`, or run another function by naming it as the entrypoint"
    )
    return MissingMainError("TypeScript", entrypoint, functions=exports, hint=hint)


def _syntax(node: Node) -> BadRequestError:
    return BadRequestError(f"the TypeScript script has a syntax error on line {first_error(node)}")


def _functions(root: Node) -> dict[str, Node]:
    """Return the functions of the top level, exported or not, by name."""
    found = {}
    for node in named(root):
        declaration = child(node, "declaration") if node.type == "export_statement" else node
        if declaration is None:
            continue
        if declaration.type in _FUNCTIONS:
            found[text(child(declaration, "name"))] = declaration
        for kid in named(declaration) if declaration.type in ("lexical_declaration", "variable_declaration") else []:
            value = unwrapped(child(kid, "value"))
            if value is not None and value.type in _FUNCTIONS:
                found[text(child(kid, "name"))] = value
    return found


def _exports(root: Node) -> dict[str, Node]:
    """Return the exported functions by the name they are exported under."""
    functions = _functions(root)
    found: dict[str, Node] = {}
    for statement in named(root):
        if statement.type == "export_statement" and child(statement, "source") is None:
            found |= _exported_by(statement, functions)
    return found


def _exported_by(statement: Node, functions: dict[str, Node]) -> dict[str, Node]:
    default = any(kid.type == "default" for kid in statement.children)
    declaration, value = child(statement, "declaration"), unwrapped(child(statement, "value"))
    if default:
        main = declaration if declaration is not None else value
        if main is not None and main.type not in _FUNCTIONS:
            main = functions.get(text(main))
        return {"default": main} if main is not None else {}
    if declaration is not None:
        names = [text(child(node, "name")) for node in [declaration, *named(declaration)]]
        return {name: functions[name] for name in names if name in functions}
    specifiers = [spec for kid in named(statement) if kid.type == "export_clause" for spec in named(kid)]
    pairs = [
        (text(child(spec, "name")), text(child(spec, "alias")) or text(child(spec, "name"))) for spec in specifiers
    ]
    return {alias: functions[name] for name, alias in pairs if name in functions}


def _params(main: Node, parameters: Node | None, types: _Types) -> tuple[Param, ...]:
    if parameters is None:  # `async x => …`: one parameter without parentheses
        single = child(main, "parameter")
        return () if single is None else (_untyped(text(single)),)
    nodes = [node for node in named(parameters) if node.type in ("required_parameter", "optional_parameter")]
    kept = [node for node in nodes if (pattern := child(node, "pattern")) is not None and _counts(pattern)]
    return tuple(_param(node, position, types) for position, node in enumerate(kept, start=1))


def _counts(pattern: Node) -> bool:
    return pattern.type not in ("rest_pattern", "this")


def _untyped(name: str) -> Param:
    return Param(name=name, kind="any", schema={})


def _param(node: Node, position: int, types: _Types) -> Param:
    pattern, annotation, value = child(node, "pattern"), child(node, "type"), child(node, "value")
    default = constant(value)
    known = types.read(named(annotation)[0]) if annotation is not None else type_of_value(_as_number(default))
    return Param(
        name=text(pattern) if pattern is not None and pattern.type == "identifier" else f"arg{position}",
        kind=known.kind,
        schema=known.schema,
        type_text=text(annotation).removeprefix(":").strip(),
        optional=known.optional or node.type == "optional_parameter",
        has_default=value is not None,
        default=default,
    )


def _as_number(value: object) -> object:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


class _Types(TypeReader):
    """Reads type annotations, with the types, interfaces and enums of the module at hand."""

    def __init__(self, root: Node) -> None:
        super().__init__()
        declarations = [child(node, "declaration") or node for node in named(root)]
        wanted = {"type_alias_declaration", "interface_declaration", "enum_declaration"}
        self._known = {text(child(node, "name")): node for node in declarations if node.type in wanted}
        self._readers: dict[str, Callable[[Node], Type]] = {
            "predefined_type": lambda node: self._named(text(node)),
            "type_identifier": lambda node: self._named(text(node)),
            "nested_type_identifier": self._qualified,
            "literal_type": _literal,
            "template_literal_type": lambda _: known_type("str"),
            "array_type": self._array,
            "tuple_type": lambda _: list_of(),
            "object_type": self._object,
            "interface_body": self._object,
            "union_type": self._union,
            "intersection_type": self._intersection,
            "generic_type": self._generic,
            "parenthesized_type": self._inner,
            "readonly_type": self._inner,
        }

    def read(self, node: Node) -> Type:
        """Return the type that a node stands for; what can't be understood is of any type."""
        reader = self._readers.get(node.type)
        return known_type("any") if reader is None else reader(node)

    def _inner(self, node: Node) -> Type:
        return self.read(named(node)[0])

    def _array(self, node: Node) -> Type:
        return list_of(self._inner(node))

    def _qualified(self, node: Node) -> Type:
        return self._named(text(child(node, "name")))

    def _named(self, name: str) -> Type:
        if name in self._known:
            return self.unfold(name, lambda: self._declared(self._known[name]))
        if name in _SIMPLE:
            return known_type(_SIMPLE[name])
        return list_of() if name in _LISTS else mapping_of() if name in _MAPPINGS else resource(name)

    def _declared(self, node: Node) -> Type:
        if node.type == "type_alias_declaration":
            value = child(node, "value")
            return self.read(value) if value is not None else known_type("any")
        if node.type == "enum_declaration":
            return _enum(child(node, "body"))
        parents = [kid for clause in named(node) if clause.type == "extends_type_clause" for kid in named(clause)]
        body = child(node, "body")
        return _merged([self.read(part) for part in [*parents, *([body] if body is not None else [])]])

    def _object(self, node: Node) -> Type:
        fields, optional = {}, set()
        for item in named(node):
            key, annotation = child(item, "name"), child(item, "type")
            if item.type == "index_signature":
                return mapping_of(self.read(named(annotation)[0]) if annotation is not None else None)
            if item.type == "property_signature" and key is not None:
                fields[key_name(key)] = self.read(named(annotation)[0]) if annotation is not None else known_type("any")
                optional |= {key_name(key)} if any(kid.type == "?" for kid in item.children) else set()
        return object_of(fields, defaulted=frozenset(optional))

    def _union(self, node: Node) -> Type:
        nodes = _flat_union(node)
        typed = [kid for kid in nodes if text(kid) not in ("null", "undefined", "void")]
        known = union_of([self.read(kid) for kid in typed])
        return msgspec.structs.replace(known, optional=known.optional or len(typed) < len(nodes))

    def _intersection(self, node: Node) -> Type:
        return _merged([self.read(kid) for kid in named(node)])

    def _generic(self, node: Node) -> Type:
        head, *rest = named(node)
        name = text(child(head, "name")) if head.type == "nested_type_identifier" else text(head)
        inner = named(rest[0]) if rest else []
        if name in _LISTS and inner:
            return list_of(self.read(inner[0]))
        if name in _MAPPINGS and inner:
            return mapping_of(self.read(inner[-1]))
        if name in _WRAPPERS and inner:
            return self.read(inner[0])
        if name == "Resource" and inner and inner[0].type == "literal_type":
            return resource(str(constant(named(inner[0])[0])))
        return self._named(name)


def _flat_union(node: Node) -> list[Node]:
    return [leaf for kid in named(node) for leaf in (_flat_union(kid) if kid.type == "union_type" else [kid])]


def _merged(parts: list[Type]) -> Type:
    """Return one object type with the fields of all parts."""
    fields = {name: schema for part in parts for name, schema in part.schema.get("properties", {}).items()}
    required = [name for part in parts for name in part.schema.get("required", [])]
    return Type(kind="dict", schema={"type": "object", "properties": fields, "required": list(dict.fromkeys(required))})


def _literal(node: Node) -> Type:
    kids = named(node)
    value = constant(kids[0]) if kids else UNSET
    if value is None or (kids and kids[0].type == "undefined"):
        return Type(kind="any", schema={}, optional=True)
    return known_type("any") if value is UNSET else enum_of([value])


def _enum(body: Node | None) -> Type:
    values: list[object] = []
    for item in named(body):
        value = constant(child(item, "value"))
        last = values[-1] if values else -1
        values.append(value if value is not UNSET else last + 1 if isinstance(last, int) else text(item))
    return enum_of(values)
