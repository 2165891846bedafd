"""Parameters of a script, and their JSON schema as clients show it in forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from millhand.core.errors import BadRequestError

DRAFT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]


class MissingMainError(BadRequestError):
    """The code can be read and has no function of the name that should be run."""

    def __init__(self, language: str, entrypoint: str, *, functions: Sequence[str], hint: str) -> None:
        """Say which function is missing, what there is instead and how to write it."""
        known = f" (it has {', '.join(functions)})" if functions else ""
        super().__init__(f"the {language} script has no function {entrypoint}{known}; {hint}")


class Param(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter of the entry function."""

    name: str
    kind: str  # str, int, float, bool, bytes, datetime, date, list, dict, enum, resource, or any: what to convert from JSON
    schema: Schema  # JSON schema of a value, without its default
    type_text: str = ""  # the type as the code writes it
    optional: bool = False  # may be left out, or given as null, though it has no default
    has_default: bool = False
    default: Any | UnsetType = (
        UNSET  # a JSON value; UNSET where there is no default or only running the code can tell it
    )

    @property
    def required(self) -> bool:
        """Tell whether a call without it is incomplete."""
        return not (self.has_default or self.optional)


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What a script takes, in the order of its parameters."""

    params: tuple[Param, ...]
    entrypoint: str = "main"
    is_async: bool = False
    takes_kwargs: bool = False  # takes arguments of any other name, too
    has_preprocessor: bool = False
    results: tuple[str, ...] = ()  # Go: the types of the results, as the code writes them

    def json_schema(self) -> Schema:
        """Return the JSON schema of the arguments, with the order of the parameters for forms."""
        return {
            "$schema": DRAFT,
            "type": "object",
            "order": [param.name for param in self.params],
            "properties": {param.name: _property(param) for param in self.params},
            "required": [param.name for param in self.params if param.required],
        }


def _property(param: Param) -> Schema:
    default = {} if param.default is UNSET else {"default": param.default}
    nullable = {"nullable": True} if param.optional or param.default is None else {}
    return {**param.schema, **default, **nullable}


class Type(msgspec.Struct, frozen=True, kw_only=True):
    """A type as one language's reader understood it."""

    kind: str
    schema: Schema
    optional: bool = False

    @property
    def nested(self) -> Schema:
        """Return the schema of a value of this type inside a list or an object, where null is a value of its own."""
        return {**self.schema, "nullable": True} if self.optional else self.schema


class TypeReader:
    """What readers of types share: a bound on unfolding, so that types that hold themselves, or each other, end."""

    def __init__(self) -> None:
        """Start with nothing unfolded."""
        self._unfolding: set[str] = set()
        self._unfoldings_left = 200

    def unfold(self, name: str, read: Callable[[], Type]) -> Type:
        """Read the declaration of a name; of any type inside of itself, and when too much was unfolded."""
        if name in self._unfolding or self._unfoldings_left == 0:
            return known_type("any")
        self._unfoldings_left -= 1
        self._unfolding.add(name)
        try:
            return read()
        finally:
            self._unfolding.discard(name)


def known_type(kind: str) -> Type:
    """Return the type of a kind that needs no more words."""
    return Type(kind=kind, schema=dict(_SCHEMAS[kind]))


def list_of(item: Type | None = None) -> Type:
    """Return the type of a list."""
    return Type(kind="list", schema={"type": "array", "items": item.nested if item else {}})


def mapping_of(value: Type | None = None) -> Type:
    """Return the type of an object with keys of any name."""
    extra = {"additionalProperties": value.nested} if value and value.nested else {}
    return Type(kind="dict", schema={"type": "object", **extra})


def object_of(fields: dict[str, Type], *, defaulted: frozenset[str] = frozenset()) -> Type:
    """Return the type of an object with these fields; optional and defaulted ones may be missing."""
    required = [name for name, field in fields.items() if not field.optional and name not in defaulted]
    properties = {name: field.nested for name, field in fields.items()}
    return Type(kind="dict", schema={"type": "object", "properties": properties, "required": required})


def enum_of(values: Sequence[Any]) -> Type:
    """Return the type of one of these JSON values."""
    kinds = {_TYPE_OF.get(type(value)) for value in values}
    only = kinds.pop() if len(kinds) == 1 else None
    return Type(kind="enum", schema={**({"type": only} if only else {}), "enum": list(values)})


def resource(name: str) -> Type:
    """Return the type of a resource: an object whose format names the resource type, `resource-<snake_case>`."""
    snake = "".join(f"_{char.lower()}" if char.isupper() else char for char in name).lstrip("_")
    return Type(kind="resource", schema={"type": "object", "format": f"resource-{snake}"})


def union_of(members: Sequence[Type]) -> Type:
    """Return the type of a value that is of one of these types."""
    distinct = [m for i, m in enumerate(members) if m not in members[:i]]
    optional = any(member.optional for member in distinct)
    if not distinct:
        return Type(kind="any", schema={}, optional=optional)
    if len(distinct) == 1:
        return msgspec.structs.replace(distinct[0], optional=optional)
    if all(member.kind == "enum" for member in distinct):
        joined = enum_of([value for member in distinct for value in member.schema["enum"]])
        return msgspec.structs.replace(joined, optional=optional)
    if any(not member.schema for member in distinct):
        return Type(kind="any", schema={}, optional=optional)
    return Type(kind="any", schema={"anyOf": [member.schema for member in distinct]}, optional=optional)


def json_value(value: Any) -> Any:
    """Return a value as JSON would give it back, or UNSET where JSON can't carry it (huge numbers, halves of characters)."""
    try:
        return UNSET if value is UNSET else msgspec.json.decode(msgspec.json.encode(value))
    except (ValueError, TypeError, OverflowError, RecursionError, msgspec.MsgspecError):
        return UNSET


def type_of_value(value: Any) -> Type:
    """Return the type that a default value speaks of, where nothing else names one."""
    kind = {bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "dict"}.get(type(value), "any")
    return known_type(kind)


_TYPE_OF: dict[type, str] = {str: "string", bool: "boolean", int: "integer", float: "number"}
_SCHEMAS: dict[str, Schema] = {
    "any": {},
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
    "datetime": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "uuid": {"type": "string", "format": "uuid"},
    "list": {"type": "array", "items": {}},
    "dict": {"type": "object"},
}
