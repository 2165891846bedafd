"""Throughput: isolated Python jobs end to end, each durable, with a log line and a result."""

from __future__ import annotations

from collections.abc import Iterable

from bench import stack
from bench.context import Context, Part
from bench.measure import Row, Samples

WORKERS = 20
TARGET = 700
CODE = """\
def main(x: int):
    print("x is", x)
    return {"x": x, "square": x * x}
"""


def run(context: Context) -> Iterable[Row]:
    """Run many small Python jobs, each alone in its own process and namespaces."""
    n = context.size(3000, 300)
    samples = Samples()
    for _ in context.rounds():
        stack.against_bare(samples, isolated_rate(context, n), n, at_once=WORKERS)
    yield Row(
        metric=f"{n:,} isolated Python jobs, one log line and one result each",
        unit="jobs/s",
        values=samples["ours"],
        target=TARGET,
        note=f"1 host x {WORKERS} workers",
    )
    yield from stack.bare_rows(samples, "")


def isolated_rate(context: Context, n: int, *, workers: int = WORKERS) -> float:
    """Return jobs/s of n queued Python jobs; raises where one failed or has no log."""
    url = stack.fresh_database(context.postgres)
    stack.run(stack.push(url, [stack.python(CODE, args={"x": number}) for number in range(n)]))
    with stack.worker_host(context.postgres, workers=workers):
        rate = stack.drain(context.postgres, n)
    logged = context.postgres.psql(
        stack.DATABASE, "select count(distinct job_id) from job_log where text like '%x is %'"
    )
    if int(logged) != n:
        raise stack.HostFailedError(f"{logged} of {n} jobs have their log")
    return rate


PART = Part(name="throughput", title="Isolated Python jobs, end to end", budget_s=45, run=run)
