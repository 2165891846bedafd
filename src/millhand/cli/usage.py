"""What a command line gets wrong."""

from __future__ import annotations

from uuid import UUID

from millhand.core.errors import MillhandError


class UsageError(MillhandError):
    """The command line can't be understood or can't be meant (exit code 2)."""


def parse_id(text: str) -> str:
    """Return a job id; raises UsageError for what is none."""
    try:
        return str(UUID(text))
    except ValueError:
        raise UsageError(f"{text!r} is not a job id; `millhand jobs` lists them") from None
