"""cancel.sql: what becomes of jobs somebody cancels."""

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec

from millhand.core.ids import new_id
from millhand.store import cancel, completion, logs, queue

from .conftest import new_job, report


async def do_cancel(database, *ids, **changes):
    return await cancel.cancel(database, ids, **{"workspace_id": "main", "by": "bob", "reason": "why", **changes})


async def test_a_waiting_job_ends_at_once(database, host):
    """A job that no worker holds is recorded as canceled, with who and why in its record and its log."""
    queued = new_job(awaited=True)
    scheduled = new_job(scheduled_for=datetime.now(UTC) + timedelta(hours=1))
    await queue.push(database, [queued, scheduled])
    done = await do_cancel(database, queued.id, scheduled.id)

    assert set(done.ended) == {queued.id, scheduled.id}
    assert (done.told, done.awaited) == ((), (queued.id,))
    assert await host.claim(2) == []
    row = await database.fetchrow("select *, status::text as status from job_completed where id = $1", queued.id)
    assert (row["status"], row["canceled_by"], row["canceled_reason"], row["started_at"]) == (
        "canceled",
        "bob",
        "why",
        None,
    )
    assert msgspec.json.decode(row["result"])["error"]["message"] == "Job canceled: why by bob"
    assert await logs.read(database, queued.id) == ("canceled by bob: why\n", 21)


async def test_a_running_job_is_told(database, host):
    """A job that runs is marked, for its worker to end it; the first one who canceled stays."""
    await queue.push(database, [new_job()])
    (job,) = await host.claim()
    done = await do_cancel(database, job.id)
    await do_cancel(database, job.id, by="eve")

    assert (done.ended, done.told) == ((), (job.id,))
    assert await database.fetchval("select canceled_by from job_queue") == "bob"


async def test_a_forced_cancel_ends_a_running_job(database, host):
    """With force a running job is recorded at once, its worker told, and its worker's report refused."""
    await queue.push(database, [new_job()])
    (job,) = await host.claim()
    done = await do_cancel(database, job.id, force=True)

    assert (done.ended, done.told) == ((job.id,), (job.id,))
    assert (await completion.complete(database, [report(job)], host.info.incarnation)).held == set()
    assert await database.fetchval("select status::text from job_completed") == "canceled"


async def test_descendants_go_with_their_ancestor(database, host):
    """Children and grandchildren are canceled too, each as its own state asks."""
    parent = new_job()
    child = new_job(parent_job=parent.id)
    grandchild = new_job(parent_job=child.id, tag="u")
    await queue.push(database, [parent, child, grandchild])
    (running,) = await host.claim(tags=("u",))
    done = await do_cancel(database, parent.id)

    assert running.id == grandchild.id
    assert set(done.ended) == {parent.id, child.id}
    assert done.told == (grandchild.id,)


async def test_only_unended_jobs_of_the_workspace(database, host):
    """A cancel in another workspace, of an ended job or of an unknown one does nothing."""
    job = new_job()
    await queue.push(database, [job])

    assert (await do_cancel(database, job.id, workspace_id="other")).ended == ()
    assert (await do_cancel(database, job.id, workspace_id=None)).ended == (job.id,)
    assert (await do_cancel(database, job.id, new_id())).ended == ()
    assert await cancel.state(database, "main", job.id) == "ended"
    assert await cancel.state(database, "other", job.id) is None


async def test_perpetual_scripts_are_canceled_by_path(database):
    """All unended runs of a perpetual script at a path end; other jobs at that path go on."""
    path = {"runnable_path": "u/admin/x"}
    perpetual, other = new_job(restart_unless_cancelled=True, **path), new_job(**path)
    await queue.push(database, [perpetual, other])
    done = await cancel.cancel_persistent(database, "main", "u/admin/x", by="bob")

    assert done.ended == (perpetual.id,)
    assert await cancel.state(database, "main", other.id) == "unended"


async def test_cancel_and_claim_at_once(database, host):
    """A cancel that meets a claim either ends the job or tells its worker: never neither, never both."""
    jobs = [new_job() for _ in range(40)]
    await queue.push(database, jobs)
    claims, *cancels = await asyncio.gather(host.claim(40), *(do_cancel(database, job.id) for job in jobs))

    ended = {job_id for done in cancels for job_id in done.ended}
    told = {job_id for done in cancels for job_id in done.told}
    assert ended | told == {job.id for job in jobs}
    assert {job.id for job in claims} == told
    assert await database.fetchval("select count(*) from job_queue where canceled_by is null") == 0
