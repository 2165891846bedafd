"""Tags: the words that route jobs to workers. Names and defaults follow Windmill's documentation of worker groups."""

from __future__ import annotations

import re

from millhand.core.errors import BadRequestError

DEFAULT_GROUP_TAGS = (
    "deno", "python3", "go", "bash", "powershell", "dependency", "flow", "hub", "bun", "php", "rust", "ansible",
    "csharp", "java", "nu", "ruby", "duckdb", "other",
)  # fmt: skip
NATIVE_GROUP_TAGS = ("nativets", "postgresql", "mysql", "mssql", "graphql", "snowflake", "bigquery", "oracledb")
ALL_DEFAULT_TAGS = DEFAULT_GROUP_TAGS + NATIVE_GROUP_TAGS
DEPENDENCY_TAG = "dependency"
FLOW_TAG = "flow"

MAX_TAG_LENGTH = 100
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/#@$\[\]-]*")


def group_tags(group: str) -> tuple[str, ...]:
    """Return the tags that workers of a group listen to when nothing else is said."""
    return NATIVE_GROUP_TAGS if group == "native" else DEFAULT_GROUP_TAGS


def check_tag(tag: str) -> str:
    """Return the tag, or raise BadRequestError where a tag can't look like this."""
    if len(tag) > MAX_TAG_LENGTH:
        raise BadRequestError(f"tag is {len(tag)} characters long; at most {MAX_TAG_LENGTH} are allowed")
    if not _TAG.fullmatch(tag):
        raise BadRequestError(
            f"tag {tag!r} has characters a tag can't have; use letters, digits and _ . : / # @ $ [ ] -, "
            "and start with a letter, a digit or _"
        )
    return tag


def parse_tags(text: str) -> tuple[str, ...]:
    """Read a comma-separated list of tags, as `WORKER_TAGS` has it; duplicates and blanks are dropped."""
    return tuple(dict.fromkeys(check_tag(tag.strip()) for tag in text.split(",") if tag.strip()))
