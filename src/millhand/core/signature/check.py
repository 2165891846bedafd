"""Arguments against a schema, in plain words.

The schemas are those that signatures make or that people deploy with a script: the common part of JSON schema, plus
`nullable`. Words it does not know are passed over: a check that is unsure lets the value through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Schema = dict[str, Any]
_MAX_PROBLEMS = 20


def check_args(schema: Schema, args: Any) -> list[str]:
    """Return what is wrong with the arguments of a call, one sentence each; an empty list where nothing is."""
    if not isinstance(args, dict):
        return [f"the arguments must be a JSON object, not {_kind(args)}"]
    problems = []
    for problem in _object_problems(schema, args, "", "argument"):
        problems.append(problem)
        if len(problems) == _MAX_PROBLEMS:
            break
    return problems


def _problems(schema: Any, value: Any, name: str) -> Iterator[str]:
    if not isinstance(schema, dict) or (value is None and schema.get("nullable")):
        return
    options = schema.get("enum")
    if isinstance(options, list) and value not in options:
        yield f"{name} must be one of {', '.join(map(_show, options))}, not {_show(value)}"
    elif not _any_fits(schema, value, name):
        yield f"{name} is of none of its possible types; it is {_kind(value)}"
    elif not _has_type(schema.get("type"), value):
        yield f"{name} must be {_wanted(schema['type'])}, not {_kind(value)}"
    elif isinstance(value, dict):
        yield from _object_problems(schema, value, f"{name}.", "field")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _problems(schema.get("items"), item, f"{name}[{index}]")


def _object_problems(schema: Schema, value: dict[str, Any], prefix: str, what: str) -> Iterator[str]:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    for name in _texts(schema.get("required")):
        if name not in value:
            yield f"{prefix}{name} is missing: this {what} is required"
    for name, item in value.items():
        if name in properties:
            yield from _problems(properties[name], item, f"{prefix}{name}")
        elif isinstance(schema.get("additionalProperties"), dict):
            yield from _problems(schema["additionalProperties"], item, f"{prefix}{name}")


def _any_fits(schema: Schema, value: Any, name: str) -> bool:
    choices = schema.get("anyOf") or schema.get("oneOf")
    if not isinstance(choices, list):
        return True
    return any(next(_problems(choice, value, name), None) is None for choice in choices)


def _has_type(wanted: Any, value: Any) -> bool:
    names = _texts(wanted)
    return not names or any(name not in _CHECKS or _CHECKS[name](value) for name in names)


def _wanted(wanted: Any) -> str:
    return " or ".join(_WORDS.get(name, name) for name in _texts(wanted))


def _texts(word: Any) -> list[str]:
    """Return the texts of a word that may be one of them or a list."""
    return [item for item in (word if isinstance(word, list) else [word]) if isinstance(item, str)]


def _kind(value: Any) -> str:
    for name, check in _CHECKS.items():
        if check(value):
            return _WORDS[name]
    return type(value).__name__


def _show(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"  # noqa: PLR2004 — enough to recognise the value by


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_CHECKS: dict[Any, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
    "number": _is_number,
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_WORDS: dict[Any, str] = {
    "null": "null",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "array": "a list",
    "object": "an object",
}
