"""Tables: framed on a terminal, plain columns in a pipe, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any


def show(columns: Sequence[str], rows: Sequence[Sequence[str]], *, nothing: str) -> None:
    """Print a table on stdout; on stderr say `nothing` where it has no rows."""
    if not rows:
        print(nothing, file=sys.stderr)
    elif sys.stdout.isatty():
        _framed(columns, rows)
    else:
        _plain(columns, rows)


def show_json(value: Any) -> None:
    """Print JSON on stdout."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def span(seconds: float | None) -> str:
    """Write a duration in a few characters: `3 ms`, `1.2 s`, `4 min`, `3 h`, `2 d`."""
    if seconds is None:
        return ""
    seconds = max(seconds, 0.0)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    raise AssertionError


def ago(moment: str | None) -> str:
    """Write how long ago a moment of the API was."""
    return "" if moment is None else f"{span((datetime.now(UTC) - parse_time(moment)).total_seconds())} ago"


def between(start: str | None, end: str | None) -> float | None:
    """Return the seconds between two moments of the API."""
    return None if start is None or end is None else (parse_time(end) - parse_time(start)).total_seconds()


def parse_time(text: str) -> datetime:
    """Read a moment as the API writes it."""
    return datetime.fromisoformat(text)


def _framed(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "id")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [columns, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
