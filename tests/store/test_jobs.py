"""Lists of jobs at size: the plan of `find_jobs`."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from millhand.store import jobs, partitions, queue
from tests.store.conftest import new_job

N = 20_000


@pytest.mark.parametrize("changes", [{}, {"path": "u/a/s3"}, {"in_queue": True}])
async def test_lists_read_no_more_than_they_show(database, changes):
    """Absent filters leave the plan to the indexes: the newest of many jobs come without scanning them all."""
    for start in range(0, N, 2000):
        page = [new_job(runnable_path=f"u/a/s{number % 500}") for number in range(start, start + 2000)]
        await queue.push(database, page)
    await database.execute("analyze job, job_queue, job_completed")
    async with database.transaction() as connection:
        await connection.execute(jobs.SQL.plan_each_time)
        in_queue = changes.get("in_queue", False)
        asked = ("main", b"{}", changes.get("path"), None, in_queue, False, None, False, 30, 0, False)
        rows = await connection.fetch(f"explain (costs off) {jobs.SQL.find_jobs}", *asked)
    plan = "\n".join(row[0] for row in rows)

    assert f"Seq Scan on {partitions.name('job', datetime.now(UTC))}" not in plan, plan
    assert "Seq Scan on job_queue" not in plan, plan
