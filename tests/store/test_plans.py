"""The plans of the hot statements: as they were meant, whatever the tables hold and the planner believes."""

import json

import pytest

from millhand.core.ids import new_id
from millhand.store import completion, queue
from millhand.store.pool import QUEUE_PLANS, Database

from .conftest import Host, new_host, new_job

FOREIGN = """
insert into job_queue (id, workspace_id, tag, scheduled_for, state)
select gen_random_uuid(), 'main', 'foreign', now(), 'queued' from generate_series(1, $1)
"""


@pytest.fixture
async def database(database_url):
    """The connections of a worker host: statements planned once, while the queue was empty, for all that comes."""
    async with Database(database_url, application_name="test", max_size=1, settings=QUEUE_PLANS) as database:
        yield database


async def plan(database, sql, *args):
    """Return the nodes of the plan that an execution used, innermost last."""
    value = await database.fetchval(f"explain (analyze, costs off, timing off, summary off, format json) {sql}", *args)
    nodes = []

    def walk(node):
        nodes.append(node)
        for child in node.get("Plans", []):
            walk(child)

    walk(json.loads(value)[0]["Plan"])
    return nodes


def rows_read(nodes, relation):
    """Return how many rows of a table were read, those that were filtered out included."""
    scans = [node for node in nodes if node.get("Relation Name") == relation and "Scan" in node["Node Type"]]
    return sum((n["Actual Rows"] + n.get("Rows Removed by Filter", 0)) * n["Actual Loops"] for n in scans)


def golden(nodes):
    """Return what of a plan must not change: how each table of ours is read."""
    reads = [
        (n["Relation Name"], n["Node Type"], n.get("Index Name"))
        for n in nodes
        if "Scan" in n["Node Type"] and "Relation Name" in n
    ]
    return sorted(
        {(table, how, index) for table, how, index in reads if table in ("job_queue", "worker_host")}, key=str
    )


@pytest.mark.parametrize("n_foreign", [0, 20_000])
@pytest.mark.parametrize("analyzed", [True, False])
async def test_a_claim_does_not_feel_the_backlog_of_others(database, n_foreign, analyzed):
    """Behind any number of foreign jobs a claim reads its own candidates by the claim index, and nothing else."""
    host = await Host(database, new_host()).register()
    args = (host.workers[:3], ["t", "u", "v"], host.info.incarnation, None, 67, None)
    await database.fetch(queue.SQL.claim_jobs, *args)
    await database.execute(FOREIGN, n_foreign)
    if analyzed:
        await database.execute("analyze job_queue")
    await queue.push(database, [new_job() for _ in range(10)])
    nodes = await plan(database, queue.SQL.claim_jobs, *args)

    assert golden(nodes) == [
        ("job_queue", "Index Scan", "job_queue_claim_idx"),
        ("job_queue", "Tid Scan", None),
        ("worker_host", "Index Scan", "worker_host_pkey"),
    ]
    assert rows_read(nodes, "job_queue") <= 10 + 3 + 3
    sorts = [node for node in nodes if node["Node Type"] == "Sort"]
    assert all(sort["Actual Rows"] <= 10 for sort in sorts)


async def test_a_claim_of_a_long_backlog_reads_its_head(database):
    """With a long backlog of its own tag a claim reads as many rows as it asked for, in the index's order, unsorted."""
    host = await Host(database, new_host(tags=("foreign",))).register()
    await database.execute(FOREIGN, 20_000)
    nodes = await plan(
        database, queue.SQL.claim_jobs, host.workers[:3], ["foreign"], host.info.incarnation, None, 67, None
    )

    assert rows_read(nodes, "job_queue") == 67 + 3 + 3


async def test_completions_find_their_rows_by_key(database):
    """A batch of reports reads one row each by the primary key, however many jobs run."""
    host = await Host(database, new_host()).register()
    await queue.push(database, [new_job() for _ in range(100)])
    jobs = await host.claim(100)
    ids, n = [job.id for job in jobs], len(jobs)
    nulls = (None,) * 3
    report = (ids, [1] * n, ["success"] * n, [b"1"] * n, [1] * n, [1] * n, *nulls, host.info.incarnation, *nulls, True)
    nodes = await plan(database, completion.SQL.complete_jobs, *report)

    assert golden(nodes) == [("job_queue", "Index Scan", "job_queue_pkey")]
    assert rows_read(nodes, "job_queue") == n


async def test_the_position_of_a_job_is_counted_by_the_index(database):
    """Counting what goes before a job stays in the index of its tag."""
    await database.execute(FOREIGN, 5_000)
    job = new_job(id=new_id())
    await queue.push(database, [job])
    nodes = await plan(database, queue.SQL.count_ahead, job.id, 100)

    assert rows_read(nodes, "job_queue") <= 3
