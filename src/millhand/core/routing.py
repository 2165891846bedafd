"""Which tag a job gets."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from millhand.core.errors import BadRequestError
from millhand.core.script import Language
from millhand.core.tags import check_tag

_PLACE = re.compile(r"\$args\[([^\]]*)\]")


def job_tag(asked: str | None, of_script: str | None, language: Language, *, workspace_id: str, args: bytes) -> str:
    """Return the tag of a job: the one asked for, else the script's, else the language's own; "" means none.

    `$workspace` and `$args[a.b]` are filled in; raises BadRequestError where the outcome can't be a tag.
    """
    tag = asked or of_script
    if not tag:
        return language.default_tag
    if "$" in tag:
        tag = fill_in(tag, workspace_id=workspace_id, args=args)
    return check_tag(tag)


def fill_in(tag: str, *, workspace_id: str, args: bytes) -> str:
    """Replace `$workspace` and `$args[a.b]` (a path into the arguments; "" where there is no such thing)."""
    tag = tag.replace("$workspace", workspace_id)
    if "$args[" not in tag:
        return tag
    try:
        value = msgspec.json.decode(args)
    except msgspec.DecodeError as error:
        raise BadRequestError(f"the arguments are not JSON: {error}") from None
    return _PLACE.sub(lambda match: _text_at(value, match[1].split(".")), tag)


def _text_at(value: Any, keys: list[str]) -> str:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if value is None or isinstance(value, dict | list):
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
