"""completion.sql: how attempts end and what follows."""

from datetime import timedelta

import msgspec
import pytest

from millhand.core.job import JobStatus, LogChunk
from millhand.store import cancel, completion, logs, queue

from .conftest import new_job, report


async def claimed(database, host, n=1, **changes):
    await queue.push(database, [new_job(**changes) for _ in range(n)])
    return await host.claim(n)


async def complete(database, host, reports, now=None):
    return await completion.complete(database, reports, host.info.incarnation, now=now)


async def record(database, job):
    return await database.fetchrow("select *, status::text as status from job_completed where id = $1", job.id)


async def test_a_batch_moves_to_the_record(database, host):
    """Each report becomes a record with what the worker said, and leaves the queue."""
    first, second = await claimed(database, host, 2, awaited=True)
    done = await complete(
        database,
        host,
        [
            report(first, labels=('quo"ted', "b"), memory_peak_kb=7),
            report(second, status=JobStatus.FAILURE, canceled_by="timeout", canceled_reason="late"),
        ],
    )

    assert done.held == {first.id, second.id}
    assert done.awaited == ()  # a batch this small has announced itself
    row = await record(database, first)
    assert (row["status"], row["result"], row["worker"], row["attempt"]) == ("success", b'{"a": 1}', first.worker, 1)
    assert (row["duration_ms"], row["memory_peak_kb"], row["labels"]) == (5, 7, ['quo"ted', "b"])
    assert row["started_at"] == first.started_at
    assert (await record(database, second))["canceled_by"] == "timeout"
    assert await database.fetchval("select count(*) from job_queue") == 0


async def test_a_large_batch_leaves_announcing_to_others(database, host):
    """Commits of many jobs announce nothing, and tell whom somebody waits for."""
    jobs = await claimed(database, host, 5, awaited=True)
    done = await complete(database, host, [report(job) for job in jobs])

    assert sorted(done.awaited) == sorted(job.id for job in jobs)


async def test_reporting_twice_is_harmless(database, host):
    """A report whose answer was lost counts as held when it is repeated, and changes nothing."""
    (job,) = await claimed(database, host)
    await complete(database, host, [report(job)])
    again = await complete(database, host, [report(job, result=b"2")])

    assert again.held == {job.id}
    assert again.awaited == ()
    assert (await record(database, job))["result"] == b'{"a": 1}'


async def test_only_the_holder_reports(database, host, other_host):
    """Another host, an earlier attempt, an unknown job: not held, a normal answer, nothing is written."""
    (job,) = await claimed(database, host)
    assert (await complete(database, other_host, [report(job)])).held == set()
    await queue.release(database, [(job.id, 1)], host.info.incarnation)
    assert (await complete(database, host, [report(job)])).held == set()
    (again,) = await host.claim()
    assert (await complete(database, host, [report(job), report(again)])).held == {job.id}
    assert (await record(database, again))["attempt"] == 2


@pytest.mark.parametrize("result", [b"{", b"\xff", b'"\0"', b""])
async def test_a_result_no_database_holds_fails_its_job_alone(database, host, result):
    """A batch with one bad result records the others as they are, and that one as a failure that says why."""
    good, bad = await claimed(database, host, 2)
    done = await complete(database, host, [report(bad, result=result), report(good)])

    assert done.held == {good.id, bad.id}
    assert (await record(database, good))["status"] == "success"
    row = await record(database, bad)
    assert row["status"] == "failure"
    assert msgspec.json.decode(row["result"])["error"]["name"] == "InvalidResult"


async def test_unstorable_words_beside_the_result(database, host):
    """A reason or a label that no database holds does not keep a job from ending."""
    (job,) = await claimed(database, host)
    done = await complete(database, host, [report(job, canceled_by="a\0b", labels=("\ud800",))])

    assert done.held == {job.id}
    assert (await record(database, job))["canceled_by"] == "ab"


async def test_a_result_too_large_becomes_a_failure(database, host, monkeypatch):
    """A result over the limit is not stored; the job fails and says how large it was."""
    monkeypatch.setattr(completion, "MAX_JSON_BYTES", 10)
    (job,) = await claimed(database, host)
    await complete(database, host, [report(job, result=b'"0123456789"')])

    assert b"12 bytes long" in (await record(database, job))["result"]


async def test_large_batches_are_cut(database, host, monkeypatch):
    """Reports that are too much for one statement go in several."""
    monkeypatch.setattr(completion, "MAX_STATEMENT_BYTES", 10)
    jobs = await claimed(database, host, 3)

    assert (await complete(database, host, [report(job) for job in jobs])).held == {job.id for job in jobs}


async def test_a_cancel_on_the_row_is_recorded(database, host):
    """A job that was canceled and ended by itself keeps its status, and by whom it was canceled."""
    (job,) = await claimed(database, host)
    await cancel.cancel(database, [job.id], workspace_id="main", by="bob", reason="why")
    await complete(database, host, [report(job)])

    row = await record(database, job)
    assert (row["status"], row["canceled_by"], row["canceled_reason"]) == ("success", "bob", "why")


async def test_results_are_kept_for_their_time(database, host):
    """A success with a cache key answers later runs until it expires; a failure is not kept."""
    good, bad = await claimed(database, host, 2)
    await complete(
        database,
        host,
        [
            report(good, cache_key="k", cache_ttl_s=60),
            report(bad, cache_key="bad", cache_ttl_s=60, status=JobStatus.FAILURE),
        ],
    )
    now = await database.fetchval("select now()")

    assert await completion.cached_result(database, "k") == b'{"a": 1}'
    assert await completion.cached_result(database, "bad") is None
    assert await completion.cached_result(database, "k", now=now + timedelta(seconds=61)) is None
    assert await completion.delete_expired_results(database) == 0
    assert await completion.delete_expired_results(database, now=now + timedelta(seconds=61)) == 1


async def test_perpetual_jobs_start_again(database, host):
    """A perpetual job is pushed again as it was, under a new id, ten seconds after its start at the earliest."""
    (job,) = await claimed(database, host, restart_unless_cancelled=True, args=b'{"x": 1}', priority=4)
    done = await complete(database, host, [report(job, rerun=True)])

    assert done.tags == ()
    due = await queue.promote_due(database, now=job.started_at + timedelta(seconds=10))
    assert due.n_promoted == 1
    (again,) = await host.claim()
    assert again.id != job.id
    assert again.scheduled_for == job.started_at + timedelta(seconds=10)
    assert (again.args, again.priority, again.restart_unless_cancelled, again.attempt) == (b'{"x": 1}', 4, True, 1)


async def test_slow_perpetual_jobs_start_again_at_once(database, host):
    """One that ran for longer than ten seconds is due at once, and its tag is to be nudged."""
    (job,) = await claimed(database, host, restart_unless_cancelled=True)
    later = job.started_at + timedelta(seconds=11)

    assert (await complete(database, host, [report(job, rerun=True)], now=later)).tags == ("t",)


async def test_canceled_perpetual_jobs_end(database, host):
    """Once somebody canceled it, a perpetual job does not start again, and neither does one reported twice."""
    canceled, twice = await claimed(database, host, 2, restart_unless_cancelled=True)
    await cancel.cancel(database, [canceled.id], workspace_id="main", by="bob")
    await complete(database, host, [report(canceled, rerun=True), report(twice, rerun=True)])
    await complete(database, host, [report(twice, rerun=True)])

    assert await database.fetchval("select count(*) from job_queue") == 1


async def left(database, job):
    return await database.fetchrow(
        """select args, result, (select count(*) from job_log where job_id = job.id) as n_logs
             from job join job_completed using (id) where id = $1""",
        job.id,
    )


async def test_delete_after_use_leaves_no_trace(database, host):
    """With nobody waiting, arguments, result and log are gone with the end of the job."""
    (job,) = await claimed(database, host, delete_after_use=True, args=b'{"secret": 1}')
    await logs.append(database, [LogChunk(job_id=job.id, text="secret\n")])
    await complete(database, host, [report(job, delete_after_use=True)])

    assert tuple(await left(database, job)) == (None, None, 0)


async def test_an_awaited_result_is_erased_when_delivered(database, host):
    """Arguments go at once; the result that somebody waits for goes when it was delivered, or after a while."""
    delivered, forgotten = await claimed(database, host, 2, delete_after_use=True, awaited=True)
    await complete(database, host, [report(job, delete_after_use=True) for job in (delivered, forgotten)])
    assert tuple(await left(database, delivered)) == (b"null", b'{"a": 1}', 0)

    async with database.transaction() as connection:
        await completion.erase(connection, [delivered.id])
    assert tuple(await left(database, delivered)) == (None, None, 0)
    assert await completion.erase_undelivered(database, older_than_s=60) == 0
    later = await database.fetchval("select now() + interval '61 s'")
    assert await completion.erase_undelivered(database, older_than_s=60, now=later) == 1
    assert tuple(await left(database, forgotten)) == (None, None, 0)


async def test_the_rest_of_a_log_comes_with_the_record(database, host):
    """What a report carries of the log is appended in the same commit, after what was there; a late report adds nothing."""
    first, second = await claimed(database, host, 2)
    await logs.append(database, [LogChunk(job_id=first.id, text="a😀\n")])
    reports = [report(first, log="end\0é\n"), report(second)]
    await complete(database, host, reports)
    await complete(database, host, reports)

    assert await logs.read(database, first.id) == ("a😀\nendé\n", 9)
    assert await logs.read(database, first.id, offset=4) == ("endé\n", 9)
    assert await logs.read(database, second.id) == ("", 0)
