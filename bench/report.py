"""Write docs/performance.md from the last results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from bench import results
from bench.measure import NOISY, Row
from bench.parts import PARTS
from bench.results import Saved
from bench.table import mark, number, spread, target

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
OURS = "millhand"

_INTRODUCTION = """\
# Performance

Written by `python -m bench report` from the figures in `bench/results/`; run `make bench` to measure again (15 minutes at most),
or `python -m bench PART` for one part (`--quick` for a short look that keeps nothing, `--repetitions N` for more rounds).
"""

_HOW_TO_READ = """\
## How to read this

- A figure is the **median of the rounds**, with the smallest and largest beside it. Rounds are whole: a fresh database each time.
- **Everything shares the machine**: PostgreSQL, the program that pushes, and the workers. On a machine of their own each would have more.
- **Durability is PostgreSQL's default** (`fsync`, `synchronous_commit`, `full_page_writes` on), for us and for the peers that use it.
  Redis has Debian's default, snapshots without an append-only file: its peers may lose acknowledged jobs where the others can't.
- **Rates** count from the first job's start to the last completion that others can see, jobs queued before; starting programs is left out.
- **Our jobs keep a record** (arguments, result, times, worker) after they end. Where a peer keeps less, its row says so.
- **Isolated** means: a process of its own for this one job, in its own PID, mount and IPC namespaces, under an unprivileged user, with a private `/tmp`.
  Peers run jobs as function calls inside their worker unless their row says *a fresh process per job*.
- **The machine is a virtual one, and its speed is not the same from day to day**: targets in milliseconds and jobs per second were set
  where a fresh interpreter takes 22 ms and 1,080 isolated forks a second are all there is. The rows *fresh interpreter* and *bare
  isolated forks* say what it was in this run; peers slow down with it.
- Ratios are taken in one run, both sides in turn, so that a slow minute of the machine hits both.
- A part that began while others used more than a tenth of the machine says so; don't trust its figures.
"""


def write() -> Path:
    """Write the page and return its path."""
    saved = [found for part in PARTS if (found := results.load(part.name)) is not None]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(_page(saved)) + "\n")
    return PAGE


def _page(saved: list[Saved]) -> Iterator[str]:
    yield _INTRODUCTION
    yield from _machines(saved)
    yield from _targets(saved)
    yield from _comparison(saved)
    for one in saved:
        yield from _part(one)
    yield _HOW_TO_READ.rstrip()


def _machines(saved: list[Saved]) -> Iterator[str]:
    yield "## The machine\n"
    stable = {name: value for one in saved for name, value in one.machine.items()}
    yield from (f"- {name}: {value}" for name, value in stable.items())
    yield ""


def _targets(saved: list[Saved]) -> Iterator[str]:
    rows = [row for one in saved for row in one.outcome.rows if row.target is not None]
    yield "## Targets\n"
    yield from _lines(("what", "target", "measured", "min-max", ""), (_target_row(row) for row in rows))
    noisy = [one.outcome.title for one in saved if one.outcome.foreign > NOISY]
    if noisy:
        yield f"Other programs kept the machine busy during: {'; '.join(noisy)}. Measure those again on a quiet one.\n"


def _target_row(row: Row) -> tuple[str, ...]:
    return row.metric, f"{target(row)} {row.unit}", f"**{number(row.median)} {row.unit}**", spread(row), mark(row)


def _comparison(saved: list[Saved]) -> Iterator[str]:
    """Set everybody of the peers part side by side, each figure with its ratio to ours."""
    peers = next((one.outcome for one in saved if one.outcome.part == "peers"), None)
    if peers is None:
        return
    metrics = list(dict.fromkeys(row.metric for row in peers.rows))
    figures = {(row.who, row.metric): row for row in peers.rows}
    yield "## Beside its peers\n"
    yield "All in the same run, in turn. In brackets: the figure as a multiple of ours.\n"
    head = ("", *(f"{metric}, {_unit(metric, peers.rows)}" for metric in metrics))
    names = dict.fromkeys(row.who for row in peers.rows)
    yield from _lines(head, ((_strong(who), *(_beside(figures, who, metric) for metric in metrics)) for who in names))


def _unit(metric: str, rows: Iterable[Row]) -> str:
    return next(row.unit for row in rows if row.metric == metric)


def _strong(who: str) -> str:
    return f"**{who}**" if who == OURS else who


def _beside(figures: dict[tuple[str, str], Row], who: str, metric: str) -> str:
    mine, theirs = figures.get((OURS, metric)), figures.get((who, metric))
    if theirs is None:
        return "-"
    if mine is None or who == OURS:
        return number(theirs.median)
    return f"{number(theirs.median)} ({number(theirs.median / mine.median)}x)"


def _part(one: Saved) -> Iterator[str]:
    outcome = one.outcome
    yield f"## {outcome.title}\n"
    rows = (
        (*((row.who,) if outcome.part == "peers" else ()), row.metric, f"{number(row.median)} {row.unit}", spread(row),
         str(len(row.values)), row.note)
        for row in outcome.rows
    )  # fmt: skip
    head = ("what", "median", "min-max", "rounds", "note")
    yield from _lines(("who", *head) if outcome.part == "peers" else head, rows)
    yield from (f"- {note}" for note in outcome.notes)
    yield f"- measured {outcome.started_at} at {outcome.commit}, {outcome.seconds:.0f} s; others used {outcome.foreign:.0%} before\n"


def _lines(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""
