"""`python -m bench`: run the benchmarks, print tables, keep JSON, write docs/performance.md."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import machine, report, results
from bench.context import Context, Part
from bench.measure import NOISY, Outcome, foreign_share
from bench.parts import PARTS
from bench.postgres import Postgres
from bench.table import render

TOTAL_S = 14 * 60.0  # `make bench` is bounded to 15 minutes; the rest is for setting up
WIDTH = 180  # where the output goes to a file


def main() -> int:
    """Run what the command line asks for; exit 1 where a part failed."""
    options = _options()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    if options.parts == ["report"]:
        console.print(f"wrote {report.write()}")
        return 0
    chosen = [part for part in PARTS if not options.parts or part.name in options.parts]
    failed = _run_all(chosen, options, console)
    if not options.quick and not failed:
        console.print(f"wrote {report.write()}")
    return 1 if failed else 0


def _run_all(parts: Sequence[Part], options: argparse.Namespace, console: Console) -> list[str]:
    ends = time.perf_counter() + options.minutes * 60
    about = machine.describe()
    console.print(" · ".join(f"{name}: {value}" for name, value in about.items()))
    failed = []
    with _progress(console) as progress:
        task = progress.add_task("", total=sum(part.budget_s for part in parts))
        for number, part in enumerate(parts):
            began = time.perf_counter()
            # What one part leaves of its time goes to those after it.
            budget_s = (ends - began) * part.budget_s / sum(later.budget_s for later in parts[number:])
            try:
                outcome = _run(part, options, budget_s, lambda text: progress.update(task, description=text))
            except Exception:  # noqa: BLE001 - one broken part must not take the figures of the others
                console.print_exception(max_frames=6)
                failed.append(part.name)
            else:
                results.save(outcome, about)
                _show(console, outcome)
            progress.update(task, advance=part.budget_s)
            console.print(f"[dim]{part.name}: {time.perf_counter() - began:.0f} s[/dim]")
    return failed


def _run(part: Part, options: argparse.Namespace, budget_s: float, say) -> Outcome:
    say(part.name)
    foreign = foreign_share()
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    began = time.perf_counter()
    with Postgres() as postgres:
        context = Context(
            postgres=postgres,
            quick=options.quick,
            repetitions=1 if options.quick else options.repetitions,
            budget_s=budget_s,
            say=lambda text: say(f"{part.name}: {text}"),
        )
        rows = tuple(part.run(context))
    if foreign > NOISY:
        context.note(f"others used {foreign:.0%} of the machine just before: don't trust these figures")
    return Outcome(
        part=part.name,
        title=part.title,
        rows=rows,
        seconds=time.perf_counter() - began,
        started_at=started_at,
        commit=machine.commit(),
        quick=options.quick,
        foreign=foreign,
        notes=tuple(context.notes),
    )


def _show(console: Console, outcome: Outcome) -> None:
    console.print(render(outcome, width=console.width))
    for note in outcome.notes:
        console.print(f"  [dim]{note}[/dim]")


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Millhand and its peers.")
    names = ", ".join(part.name for part in PARTS)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"what to run ({names}; report); all where none is named"
    )
    parser.add_argument("--quick", action="store_true", help="a short look at each part, nothing kept")
    parser.add_argument("--repetitions", type=int, default=3, help="rounds of each part, as far as time lasts")
    parser.add_argument("--minutes", type=float, default=TOTAL_S / 60, help="bound for the whole run")
    options = parser.parse_args()
    unknown = set(options.parts) - {part.name for part in PARTS} - {"report"}
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {names} and report")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
