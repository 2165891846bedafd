"""From `name=value` words to a script's arguments, typed by its schema where it is known."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from millhand.cli.usage import UsageError


def read_arguments(words: Sequence[str], text: str | None, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the arguments that a command line gives; raises UsageError for what can't be meant."""
    arguments = {} if text is None else _object(sys.stdin.read() if text == "-" else text)
    properties = (schema or {}).get("properties", {})
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"{word!r} is not NAME=VALUE")
        arguments[name] = _value(value, properties.get(name, {}))
    _check_names(arguments, schema)
    return arguments


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--json takes one JSON object: {error}") from None
    if not isinstance(found, dict):
        raise UsageError(f"--json takes a JSON object, not a JSON {_KINDS.get(type(found), 'value')}")
    return found


_KINDS = {list: "array", str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}


def _value(text: str, schema: Mapping[str, Any]) -> Any:
    """Read a value as JSON where that can be; text stays text where the parameter is one (`code=007`)."""
    if schema.get("type") == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _check_names(arguments: Mapping[str, Any], schema: Mapping[str, Any] | None) -> None:
    if schema is None or "properties" not in schema:
        return
    missing = [name for name in schema.get("required", ()) if name not in arguments]
    if missing:
        raise UsageError(f"missing: {', '.join(missing)}; give {' '.join(f'{name}=…' for name in missing)}")
    unknown = [name for name in arguments if name not in schema["properties"]]
    if unknown and not schema.get("additionalProperties"):
        takes = ", ".join(schema["properties"]) or "none"
        raise UsageError(f"no such parameter: {', '.join(unknown)}; it takes {takes}")
