"""Signatures of PostgreSQL scripts: header comments that name the numbered parameters, `-- $1 name (type) = default`."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import UNSET

from millhand.core.errors import BadRequestError
from millhand.core.signature.model import Param, Signature, Type, json_value, known_type, list_of, resource

_HEADER = re.compile(
    r"^--[ \t]*\$(?P<index>\d{1,5})[ \t]+(?P<name>[A-Za-z_]\w*)[ \t]*"
    r"(?:\((?P<type>[^()\n]*(?:\([^()\n]*\)[^()\n]*)?)\)[ \t]*)?(?:=(?P<default>.*))?$",
    re.MULTILINE,
)
_USE = re.compile(
    r"""\$(?P<index>\d{1,5})(?:\s*::\s*(?P<type>
        (?:double\ precision|(?:character|bit)\ varying|time(?:stamp)?\ with(?:out)?\ time\ zone|[a-z_][\w.]*)
        (?:\([\d, ]*\))?(?:\[\])?))?""",
    re.VERBOSE | re.IGNORECASE,
)
# Whatever is never closed reaches to the end: nothing is scanned twice, however the text is made.
_NOT_CODE = re.compile(
    r"""'(?:[^']|'')*+(?:'|\Z)|"[^"]*+(?:"|\Z)|--[^\n]*|/\*.*?(?:\*/|\Z)|(?P<tag>\$(?:[A-Za-z_]\w*)?\$).*?(?:(?P=tag)|\Z)""",
    re.DOTALL,
)
_DATABASE = re.compile(r"^--\s*database\s+(?P<path>\S+)\s*$", re.MULTILINE)

_KINDS = {
    "int": "int", "integer": "int", "int2": "int", "int4": "int", "int8": "int", "smallint": "int", "bigint": "int",
    "serial": "int", "bigserial": "int", "smallserial": "int", "oid": "int", "real": "float", "float4": "float",
    "float8": "float", "float": "float", "double": "float", "double precision": "float", "numeric": "float",
    "decimal": "float", "money": "float", "bool": "bool", "boolean": "bool", "date": "date", "timestamp": "datetime",
    "timestamptz": "datetime", "time": "time", "timetz": "time", "json": "any", "jsonb": "any", "bytea": "bytes",
    "uuid": "uuid",
}  # fmt: skip


def parse(code: str, _entrypoint: str) -> Signature:
    """Return `database`, where the code names none, and the parameters; raises BadRequestError where they have a gap."""
    used = _used_types(code)
    named = {int(match["index"]): match for match in _HEADER.finditer(code)}
    indexes = sorted(used.keys() | named.keys())
    if indexes != list(range(1, len(indexes) + 1)):
        missing = next(index for index in range(1, len(indexes) + 1) if index not in indexes)
        raise BadRequestError(
            f"the SQL script has parameters up to ${indexes[-1]} but no ${missing}; number them without gaps"
        )
    params = [_param(index, named.get(index), used.get(index, "")) for index in indexes]
    return Signature(params=(*_connection(code), *params))


def database_of(code: str) -> str | None:
    """Return the database that the code names itself, by a line `-- database <path>`."""
    match = _DATABASE.search(code)
    return match["path"] if match else None


def _connection(code: str) -> tuple[Param, ...]:
    if database_of(code):
        return ()
    return (Param(name="database", kind="resource", schema=resource("postgresql").schema, type_text="postgresql"),)


def _used_types(code: str) -> dict[int, str]:
    """Return the parameters that the statements use, with the types they are cast to."""
    used: dict[int, str] = {}
    for match in _USE.finditer(_NOT_CODE.sub(" ", code)):
        index = int(match["index"])
        used[index] = used.get(index) or match["type"] or ""
    used.pop(0, None)
    return used


def _param(index: int, header: re.Match[str] | None, cast: str) -> Param:
    type_text = ((header and header["type"]) or cast or "text").strip()
    default = header["default"] if header else None
    known = _type(type_text)
    return Param(
        name=header["name"] if header else f"arg{index}",
        kind=known.kind,
        schema=known.schema,
        type_text=type_text,
        has_default=default is not None,
        default=UNSET if default is None else json_value(_default(default.strip(), known)),
    )


def _type(text: str) -> Type:
    lowered = text.lower().strip()
    if lowered.endswith("[]"):
        return list_of(_type(lowered[:-2]))
    base = re.sub(r"\s*\(.*?\)", "", lowered)
    base = re.sub(r"\s+with(out)? time zone$", "", base)
    return known_type(_KINDS.get(base, "str"))


def _default(text: str, known: Type) -> Any:
    if text.lower() == "null":
        return None
    if known.kind in {"int", "float", "bool", "list", "any"}:
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            return text
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    return text
