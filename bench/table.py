"""Outcomes as tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from bench.measure import Outcome, Row

ROOMY = 140


def render(outcome: Outcome, *, width: int) -> Table:
    """Return one part's figures as a table; remarks only where there is room for them."""
    table = Table(title=f"{outcome.title} ({outcome.seconds:.0f} s)", title_justify="left", title_style="bold")
    table.add_column("who", no_wrap=True)
    table.add_column("what")
    for name in ("median", "min-max", "n", "target"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", justify="center")
    if width >= ROOMY:
        table.add_column("note")
    for row in outcome.rows:
        cells = [
            row.who, row.metric, f"{number(row.median)} {row.unit}", spread(row), str(len(row.values)), target(row), mark(row),
            row.note,
        ]  # fmt: skip
        table.add_row(*cells[: len(table.columns)])
    return table


def number(value: float) -> str:
    """Write a figure with as many digits as it deserves."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(row: Row) -> str:
    """Write the smallest and the largest value."""
    return f"{number(min(row.values))}-{number(max(row.values))}" if len(row.values) > 1 else ""


def target(row: Row) -> str:
    """Write what is asked for."""
    if row.target is None:
        return ""
    return ("≥ " if row.more_is_better else "≤ ") + f"{row.target:,g}"


def mark(row: Row) -> str:
    """Write whether the target is met."""
    return {None: "", True: "✓", False: "✗"}[row.meets]
