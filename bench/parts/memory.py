"""Memory of an idle worker host: ten workers, every runtime warm, in all its processes together."""

from __future__ import annotations

import time
from collections.abc import Iterable

import psutil

from bench import stack
from bench.context import Context, Part
from bench.measure import Row
from millhand.core.script import Language

WORKERS = 10
TARGET = 250
SETTLE_S = 3.0
PYTHON = "def main():\n    return 1\n"
TYPESCRIPT = "export function main() {\n  return 1;\n}\n"


def run(context: Context) -> Iterable[Row]:
    """Run a few jobs so that all is warm, let the host rest, and add up its proportional set size."""
    values, counts = [], []
    for _ in context.rounds():
        url = stack.fresh_database(context.postgres)
        with stack.worker_host(context.postgres, workers=WORKERS) as host:
            jobs = [stack.python(PYTHON) for _ in range(2 * WORKERS)]
            jobs += [stack.typescript(TYPESCRIPT, language) for language in (Language.BUN, Language.DENO)]
            stack.run(stack.push(url, jobs))
            stack.drain(context.postgres, len(jobs))
            time.sleep(SETTLE_S)
            megabytes, count = _pss(host.pid)
        values.append(megabytes)
        counts.append(count)
    yield Row(
        metric=f"worker host with {WORKERS} idle workers and warm Python, Bun and Deno, PSS of all its processes",
        unit="MB",
        values=tuple(values),
        target=TARGET,
        more_is_better=False,
        note=f"{max(counts)} processes",
    )


def _pss(pid: int) -> tuple[float, int]:
    root = psutil.Process(pid)
    family = [root, *root.children(recursive=True)]
    return sum(process.memory_full_info().pss for process in family) / 1e6, len(family)


PART = Part(name="memory", title="Memory of an idle worker host", budget_s=30, run=run)
