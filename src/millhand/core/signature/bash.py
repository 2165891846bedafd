"""Signatures of Bash scripts: header lines that give the positional parameters names, `name="$1"` or `name="${2:-default}"`."""

from __future__ import annotations

import re

from msgspec import UNSET

from millhand.core.errors import BadRequestError
from millhand.core.signature.model import Param, Signature, known_type

_HEADER = re.compile(
    r"""^(?:(?:export|local|declare|readonly)[ \t]+)?(?P<name>[A-Za-z_]\w*)=
        (?P<quote>"?)\$(?:(?P<bare>\d)|\{(?P<braced>\d{1,4})\}|\{(?P<index>\d{1,4}):?-(?P<default>[^}\n]*)\})(?P=quote)[ \t]*(?:\#.*)?$""",
    re.MULTILINE | re.VERBOSE,
)
_MAX_PARAMS = 255


def parse(code: str, _entrypoint: str) -> Signature:
    """Return the parameters named by header lines; raises BadRequestError where their numbers have a gap."""
    params: dict[int, Param] = {}
    for match in _HEADER.finditer(code):
        index = int(match["bare"] or match["braced"] or match["index"])
        if 1 <= index <= _MAX_PARAMS:
            params.setdefault(index, _param(match))
    missing = [index for index in range(1, len(params) + 1) if index not in params]
    if missing:
        raise BadRequestError(
            f'the bash script names ${max(params)} but not ${missing[0]}; add a line like `name="${missing[0]}"` at its top'
        )
    return Signature(params=tuple(params[index] for index in sorted(params)))


def _param(match: re.Match[str]) -> Param:
    default = match["default"]
    return Param(
        name=match["name"],
        kind="str",
        schema=known_type("str").schema,
        has_default=default is not None,
        default=UNSET if default is None else default.strip("\"'"),
    )
