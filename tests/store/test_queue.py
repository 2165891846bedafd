"""queue.sql: push, claim, promotion, release, counts."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from millhand.core.errors import BadRequestError, ConflictError
from millhand.core.ids import new_id
from millhand.core.job import JobKind
from millhand.core.script import Language
from millhand.store import cancel, queue, workers

from .conftest import Host, new_host, new_job

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


async def test_claimed_job_has_all_that_was_pushed(database, host):
    """Every field of a pushed job that a worker needs comes out of the claim as it went in, arguments to the byte."""
    parent = new_id()
    pushed = new_job(
        kind=JobKind.PREVIEW,
        args=b'{ "a":\t1.50, "b": "\xc3\xa9\\u0000" }',
        runnable_path="u/admin/x",
        runnable_hash=-5,
        raw_code="print(1)",
        raw_lock="",
        language=Language.PYTHON3,
        entrypoint="other",
        priority=7,
        scheduled_for=NOON,
        timeout_s=3,
        cache_ttl_s=4,
        parent_job=parent,
        root_job=parent,
        flow_step_id="a",
        trigger="f/x/schedule",
        awaited=True,
        delete_after_use=True,
        restart_unless_cancelled=True,
    )
    await queue.push(database, [pushed])
    (claimed,) = await host.claim()

    shared = set(claimed.__struct_fields__) & set(pushed.__struct_fields__)
    assert {name: getattr(claimed, name) for name in shared} == {name: getattr(pushed, name) for name in shared}
    assert (claimed.attempt, claimed.worker, claimed.canceled_by) == (1, host.workers[0], None)


async def test_order_is_priority_then_time_then_id(database, host):
    """Jobs are claimed by priority, then by the time asked for, then by id."""
    first, second = sorted([new_id(), new_id()])
    jobs = [
        new_job(id=second, scheduled_for=NOON),
        new_job(id=first, scheduled_for=NOON),
        new_job(scheduled_for=NOON - timedelta(hours=1)),
        new_job(scheduled_for=NOON + timedelta(hours=1), priority=2),
    ]
    await queue.push(database, jobs)

    assert [job.id for job in await host.claim(9)] == [jobs[3].id, jobs[2].id, first, second]


async def test_weighted_tags_go_before_priority(database, host):
    """The tags of a higher weight are served first, whatever the priority of other tags' jobs."""
    low, high = new_job(tag="low", priority=100), new_job(tag="high")
    await queue.push(database, [low, high])

    (claimed,) = await host.claim(tags=("low", "high"), weights=(0, 5))

    assert claimed.id == high.id


async def test_only_listened_tags_are_claimed(database, host):
    """Jobs of other tags stay where they are."""
    await queue.push(database, [new_job(tag="other")])

    assert await host.claim(3) == []


async def test_push_names_tags_with_work_at_once(database):
    """Only tags with due jobs are to be nudged."""
    later = datetime.now(UTC) + timedelta(hours=1)
    jobs = [new_job(tag="now"), new_job(tag="now"), new_job(tag="later", scheduled_for=later)]

    assert await queue.push(database, jobs) == ["now"]


async def test_push_is_all_or_nothing(database, host):
    """An id that exists refuses the whole batch with a conflict."""
    job = new_job()
    await queue.push(database, [job])
    with pytest.raises(ConflictError):
        await queue.push(database, [new_job(), job])

    assert len(await host.claim(5)) == 1


@pytest.mark.parametrize("changes", [{"args": b"{"}, {"raw_code": "a\0b"}, {"raw_code": "\ud800"}, {"args": b'"\xff"'}])
async def test_unstorable_jobs_are_refused(database, changes):
    """Text no database holds and arguments that are not JSON are the caller's mistake."""
    with pytest.raises(BadRequestError):
        await queue.push(database, [new_job(**changes)])


async def test_foreign_ids_are_accepted(database, host):
    """An id that bears no time is stored, claimed and found like any other."""
    job = new_job(id=uuid4())
    await queue.push(database, [job])

    assert [claimed.id for claimed in await host.claim()] == [job.id]


async def test_hosts_never_share_a_job(database):
    """Many hosts that claim at the same time get each job exactly once, and all jobs."""
    jobs = [new_job() for _ in range(300)]
    await queue.push(database, jobs)
    hosts = [await Host(database, new_host()).register() for _ in range(8)]

    async def drain(host):
        claimed = []
        while batch := await host.claim(7):
            claimed += batch
        return claimed

    claimed = [job.id for batch in await asyncio.gather(*map(drain, hosts)) for job in batch]

    assert sorted(claimed) == sorted(job.id for job in jobs)


async def test_a_host_without_lease_gets_nothing(database):
    """A host whose lease ran out can't claim: its jobs would be taken from it at once."""
    await queue.push(database, [new_job()])
    expired = await Host(database, new_host(lease_s=1)).register(now=NOON)
    unknown = Host(database, new_host())

    assert await expired.claim() == []
    assert await unknown.claim() == []
    assert len(await expired.claim(now=NOON)) == 1


async def test_future_jobs_wait_for_their_time(database, host):
    """A scheduled job is not claimable before its time; promotion queues it then, and tells when the next is due."""
    await workers.register(database, host.info, [], now=NOON)
    soon, later = (new_job(scheduled_for=NOON + timedelta(seconds=s), tag=t) for s, t in ((10, "t"), (25, "u")))
    await queue.push(database, [later, soon], now=NOON)

    before = await queue.promote_due(database, now=NOON)
    assert (before.n_promoted, before.tags, before.next_due_s) == (0, (), 10.0)
    assert await host.claim(now=NOON) == []

    after = await queue.promote_due(database, now=NOON + timedelta(seconds=10))
    assert (after.n_promoted, after.tags, after.next_due_s) == (1, ("t",), 15.0)
    assert [job.id for job in await host.claim(now=NOON)] == [soon.id]


async def test_promotion_of_nothing(database):
    """With nothing scheduled there is no next time."""
    assert (await queue.promote_due(database)).next_due_s is None


async def test_run_now(database, host):
    """A job that waits for its time runs now when asked; others, and those of other workspaces, do not change."""
    job = new_job(scheduled_for=datetime.now(UTC) + timedelta(days=1))
    await queue.push(database, [job])

    assert await queue.run_now(database, "elsewhere", job.id) is None
    assert await queue.run_now(database, "main", job.id) == "t"
    assert await queue.run_now(database, "main", job.id) is None
    assert len(await host.claim()) == 1


async def test_release_fences(database, host, other_host):
    """Only the host and attempt that hold a job can put it back; it keeps its place and its attempt stays raised."""
    first, second = new_job(), new_job()
    await queue.push(database, [first, second])
    (claimed,) = await host.claim()

    assert await queue.release(database, [(claimed.id, 1)], other_host.info.incarnation) == {}
    assert await queue.release(database, [(claimed.id, 2)], host.info.incarnation) == {}
    assert await queue.release(database, [(claimed.id, 1)], host.info.incarnation) == {first.id: "t"}
    assert await queue.release(database, [(claimed.id, 1)], host.info.incarnation) == {}
    (again,) = await other_host.claim()
    assert (again.id, again.attempt) == (first.id, 2)


async def test_a_cancel_between_push_and_claim_is_seen(database, host, other_host):
    """A job that was canceled while it ran, and then released, says so to its next worker."""
    await queue.push(database, [new_job()])
    (claimed,) = await host.claim()
    await cancel.cancel(database, [claimed.id], workspace_id="main", by="bob", reason="no")
    await queue.release(database, [(claimed.id, 1)], host.info.incarnation)
    (again,) = await other_host.claim()

    assert (again.canceled_by, again.canceled_reason) == ("bob", "no")


async def test_counts_and_position(database, host):
    """Counts are by tag and state; the position counts what goes before, by the order of claims."""
    await workers.register(database, host.info, [], now=NOON)
    jobs = [new_job(scheduled_for=NOON - timedelta(seconds=60 - i)) for i in range(4)]
    urgent = new_job(priority=3, scheduled_for=NOON)
    later = new_job(scheduled_for=NOON + timedelta(seconds=1))
    elsewhere = new_job(tag="u", workspace_id="other", scheduled_for=NOON)
    await queue.push(database, [*jobs, urgent, later, elsewhere], now=NOON)

    assert await queue.position(database, jobs[3].id) == 4
    assert await queue.position(database, urgent.id) == 0
    await host.claim(2, now=NOON)
    counts = {count.tag: count for count in await queue.counts(database, workspace_id="main", now=NOON)}
    assert set(counts) == {"t"}
    assert (counts["t"].n_queued, counts["t"].n_running, counts["t"].n_scheduled) == (3, 2, 1)
    assert counts["t"].oldest_s == 59.0
    assert len(await queue.counts(database)) == 2


async def test_progress_is_bounded_and_fenced(database, host, other_host):
    """Progress is set by the host that holds the job, between 0 and 100; the answer says whether somebody watches."""
    await queue.push(database, [new_job(awaited=True)])
    (job,) = await host.claim()

    assert await queue.set_progress(database, job.id, 150, host.info.incarnation) is True
    assert await queue.set_progress(database, job.id, 1, other_host.info.incarnation) is False
    assert await database.fetchval("select progress from job_queue") == 100
