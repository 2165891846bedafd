"""Signatures of Python scripts, by the parser of the Python that runs us: the code is read, never run."""

from __future__ import annotations

import ast
from typing import Any

import msgspec
from msgspec import UNSET

from millhand.core.errors import BadRequestError
from millhand.core.signature.model import (
    MissingMainError,
    Param,
    Signature,
    Type,
    TypeReader,
    enum_of,
    json_value,
    known_type,
    list_of,
    mapping_of,
    object_of,
    resource,
    type_of_value,
    union_of,
)

_Function = ast.FunctionDef | ast.AsyncFunctionDef

_SIMPLE = {
    "str": "str", "int": "int", "float": "float", "bool": "bool", "bytes": "bytes", "datetime": "datetime",
    "date": "date", "time": "time", "UUID": "uuid", "Path": "str", "LiteralString": "str", "dict": "dict", "Dict": "dict",
    "Mapping": "dict", "object": "any", "Any": "any",
}  # fmt: skip
_LISTS = {
    "list",
    "List",
    "tuple",
    "Tuple",
    "set",
    "Set",
    "frozenset",
    "FrozenSet",
    "Sequence",
    "Iterable",
    "Collection",
}
_MAPPINGS = {"dict", "Dict", "Mapping", "MutableMapping", "defaultdict", "OrderedDict"}
_WRAPPERS = {"Annotated", "Final", "Required", "ReadOnly"}
_OPTIONAL = {"Optional", "NotRequired"}
_ENUMS = {"Enum", "StrEnum", "IntEnum"}
_RECORD_DECORATORS = {"dataclass", "define", "frozen", "mutable"}
_RECORDS = {"TypedDict", "BaseModel", "NamedTuple", "Struct"}


def parse(code: str, entrypoint: str) -> Signature:
    """Return the signature of a Python function; raises BadRequestError."""
    module = read_module(code)
    functions = {node.name: node for node in module.body if isinstance(node, _Function)}
    main = functions.get(entrypoint)
    if main is None:
        hint = f"write `def {entrypoint}(…):` at the top level, or run another function by naming it as the entrypoint"
        raise MissingMainError("python3", entrypoint, functions=list(functions), hint=hint)
    return Signature(
        params=_params(main.args, _Types(module)),
        entrypoint=entrypoint,
        is_async=isinstance(main, ast.AsyncFunctionDef),
        takes_kwargs=main.args.kwarg is not None,
        has_preprocessor="preprocessor" in functions,
    )


def read_module(code: str) -> ast.Module:
    """Parse a module; raises BadRequestError that names the line."""
    try:
        return ast.parse(code)
    except SyntaxError as error:
        where = f" on line {error.lineno}" if error.lineno else ""
        raise BadRequestError(f"the python3 script has a syntax error{where}: {error.msg}") from None
    except (ValueError, MemoryError) as error:  # NUL bytes; nesting beyond the parser's stack
        raise BadRequestError(f"the python3 script can't be read: {error or 'nested too deeply'}") from None


def _params(arguments: ast.arguments, types: _Types) -> tuple[Param, ...]:
    positional = [*arguments.posonlyargs, *arguments.args]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    pairs = [
        *zip(positional, [*missing, *arguments.defaults], strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return tuple(_param(arg, default, types) for arg, default in pairs)


def _param(arg: ast.arg, default: ast.expr | None, types: _Types) -> Param:
    value = _constant(default)
    known = types.read(arg.annotation) if arg.annotation else type_of_value(value)
    return Param(
        name=arg.arg,
        kind=known.kind,
        schema=known.schema,
        type_text=ast.unparse(arg.annotation) if arg.annotation else "",
        optional=known.optional,
        has_default=default is not None,
        default=value,
    )


def _constant(node: ast.expr | None) -> Any:
    """Return the JSON value of a constant expression, or UNSET."""
    if node is None:
        return UNSET
    try:
        return json_value(ast.literal_eval(node))
    except (ValueError, TypeError, SyntaxError, MemoryError):
        return UNSET


class _Types(TypeReader):
    """Reads annotations, with the classes and aliases of the module at hand."""

    def __init__(self, module: ast.Module) -> None:
        super().__init__()
        self._classes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
        self._aliases = dict(alias for node in module.body if (alias := _alias(node)))

    def read(self, node: ast.expr) -> Type:
        """Return the type of an annotation; what can't be understood is of any type."""
        match node:
            case ast.Constant(value=None):
                return Type(kind="any", schema={}, optional=True)
            case ast.Constant(value=str(text)):
                return self._quoted(text)
            case ast.BinOp(op=ast.BitOr()):
                return self._union([node.left, node.right])
            case ast.Subscript():
                inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
                return self._generic(_last_name(node.value), inner)
            case ast.Name() | ast.Attribute():
                return self._named(_last_name(node))
            case _:
                return known_type("any")

    def _quoted(self, text: str) -> Type:
        try:
            return self.read(ast.parse(text, mode="eval").body)
        except SyntaxError:
            return known_type("any")

    def _union(self, nodes: list[ast.expr]) -> Type:
        members = [self.read(node) for node in nodes]
        nothing = any(isinstance(node, ast.Constant) and node.value is None for node in nodes)
        typed = [member for member in members if member.schema or not member.optional]
        optional = nothing or any(member.optional for member in members)
        return msgspec.structs.replace(union_of(typed), optional=optional)

    def _generic(self, name: str, inner: list[ast.expr]) -> Type:
        if name == "Literal":
            return _literal(inner)
        if name == "Union":
            return self._union(inner)
        if name in _MAPPINGS:
            return mapping_of(self.read(inner[-1]))
        first = self.read(inner[0])
        if name in _OPTIONAL:
            return msgspec.structs.replace(first, optional=True)
        if name in _LISTS:
            return list_of(first)
        return first if name in _WRAPPERS else self._named(name)

    def _named(self, name: str) -> Type:
        if name in self._classes:
            return self._class(name)
        if name in self._aliases:
            return self._alias(name)
        if name in _SIMPLE:
            return known_type(_SIMPLE[name])
        if name in _LISTS:
            return list_of()
        return resource(name)

    def _alias(self, name: str) -> Type:
        """`postgresql = dict` names a resource type; `Row = dict[str, int]` is short for a type."""
        known = self.unfold(name, lambda: self.read(self._aliases[name]))
        return resource(name) if known.kind == "dict" and name.islower() else known

    def _class(self, name: str) -> Type:
        return self.unfold(name, lambda: self._read_class(self._classes[name]))

    def _read_class(self, node: ast.ClassDef) -> Type:
        bases = {_last_name(base) for base in node.bases}
        if bases & _ENUMS:
            values = [_constant(item.value) for item in node.body if isinstance(item, ast.Assign)]
            return enum_of([value for value in values if value is not UNSET])
        parents = [
            parent for base in sorted(bases & self._classes.keys()) if (parent := self._class(base)).kind == "dict"
        ]
        decorators = {_last_name(item.func if isinstance(item, ast.Call) else item) for item in node.decorator_list}
        if not (bases & _RECORDS or decorators & _RECORD_DECORATORS or parents):
            return resource(node.name)
        record = self._record(node, parents)
        if "TypedDict" in bases and node.name.islower():  # how Windmill's clients write a resource type
            return Type(kind="resource", schema={**record.schema, **resource(node.name).schema})
        return record

    def _record(self, node: ast.ClassDef, parents: list[Type]) -> Type:
        fields: dict[str, Type] = {}
        defaulted: set[str] = set()
        for parent in parents:
            properties = parent.schema.get("properties", {})
            fields |= {name: Type(kind="any", schema=schema) for name, schema in properties.items()}
            defaulted |= properties.keys() - set(parent.schema.get("required", ()))
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                fields[item.target.id] = self.read(item.annotation)
                defaulted |= {item.target.id} if item.value is not None else set()
        if any(word.arg == "total" and _constant(word.value) is False for word in node.keywords):
            defaulted |= fields.keys()
        return object_of(fields, defaulted=frozenset(defaulted))


def _literal(nodes: list[ast.expr]) -> Type:
    values = [_constant(node) for node in nodes]
    known = enum_of([value for value in values if value is not None and value is not UNSET])
    return msgspec.structs.replace(known, optional=None in values)


def _alias(node: ast.stmt) -> tuple[str, ast.expr] | None:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name() | ast.Subscript() | ast.BinOp() as value):
            return name, value
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if "TypeAlias" in ast.dump(
            node.annotation
        ):
            return name, value
        case _ if type(node).__name__ == "TypeAlias":  # `type X = …`, known to our Python from 3.12 on
            return node.name.id, node.value  # type: ignore[attr-defined]
        case _:
            return None


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Subscript):
        return _last_name(node.value)
    return node.id if isinstance(node, ast.Name) else ""
