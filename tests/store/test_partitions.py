"""partitions.sql and retention.sql: what is made ahead, and what goes when its time is over."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from millhand.core.ids import new_id
from millhand.core.job import LogChunk
from millhand.store import completion, logs, partitions, queue, retention

from .conftest import new_job, report

DAY = datetime(2020, 5, 10, tzinfo=UTC)


async def ensure(database, now):
    async with database.acquire() as connection:
        return await partitions.ensure(connection, now=now)


async def drop(database, cutoff):
    async with database.acquire() as connection:
        return await partitions.drop_before(connection, cutoff)


async def ended_job(database, host, at, job_id=None):
    """Push and complete a job whose id bears a time."""
    job = new_job(id=job_id or new_id(int(at.timestamp() * 1000)))
    await queue.push(database, [job], now=at)
    (claimed,) = await host.claim()
    await logs.append(database, [LogChunk(job_id=job.id, text="x")])
    await completion.complete(database, [report(claimed)], host.info.incarnation, now=at)
    return job


async def n_rows(database):
    return [await database.fetchval(f"select count(*) from {table}") for table in ("job", "job_completed", "job_log")]


async def test_the_days_around_are_made_once(database):
    """Partitions from yesterday to three days ahead are made, for all four tables, once, by one of many processes."""
    made = await asyncio.gather(*(ensure(database, DAY + timedelta(hours=5)) for _ in range(3)))
    names = [name for names in made for name in names]

    assert len(names) == len(set(names)) == 20
    assert {"job_p20200509", "job_log_p20200513"} <= set(names)
    assert await ensure(database, DAY) == []


async def test_a_day_with_rows_in_the_default_partition_stays_there(database, host):
    """Where rows of a day came before its partition, the day is left to the default partition; the others are made."""
    await ended_job(database, host, DAY)
    made = await ensure(database, DAY)

    assert "job_p20200510" not in made
    assert {"job_p20200511", "job_stream_p20200510"} <= set(made)


async def test_a_day_past_retention_is_dropped(database, host):
    """A day that ended before the cutoff goes with its jobs, logs and all; the next one stays."""
    await ensure(database, DAY)
    await ended_job(database, host, DAY)
    kept = await ended_job(database, host, DAY + timedelta(days=2))
    dropped = await drop(database, DAY + timedelta(days=1))

    assert {"job_p20200509", "job_p20200510", "job_log_p20200510", "job_stream_p20200510"} <= set(dropped)
    assert len(dropped) == 8
    assert await n_rows(database) == [1, 1, 1]
    assert await database.fetchval("select id from job") == kept.id


async def test_a_day_with_unended_or_late_jobs_stays(database, host):
    """A day is kept for a job that has not ended, or that ended after the cutoff; what is old in it goes singly."""
    await ensure(database, DAY)
    await ended_job(database, host, DAY)
    late = new_job(id=new_id(int(DAY.timestamp() * 1000)))
    await queue.push(database, [late])
    cutoff = DAY + timedelta(days=1)
    assert not [name for name in await drop(database, cutoff) if name.endswith("20200510")]

    (claimed,) = await host.claim()
    await completion.complete(database, [report(claimed)], host.info.incarnation)
    assert await drop(database, cutoff) == []
    assert await retention.delete_jobs(database, cutoff) == 1
    assert await database.fetch("select id from job_completed") == [(late.id,)]


async def test_foreign_ids_go_singly(database, host):
    """Jobs with ids that bear no time are deleted from the default partition, in bounded batches."""
    for _ in range(3):
        await ended_job(database, host, DAY, uuid4())

    assert await retention.delete_jobs(database, DAY + timedelta(seconds=1), limit=2) == 2
    assert await retention.delete_jobs(database, DAY + timedelta(seconds=1), limit=2) == 1
    assert await n_rows(database) == [0, 0, 0]


async def test_locked_tables_are_left_for_later(database, host, monkeypatch):
    """Where the tables are in long use, dropping gives way instead of having everybody wait behind it."""
    await ensure(database, DAY)
    monkeypatch.setattr(
        partitions.SQL, "_statements", {**partitions.SQL._statements, "wait_briefly": "set local lock_timeout = '10ms'"}
    )
    async with database.transaction() as reader:
        await reader.fetch("select from job")
        assert await drop(database, DAY + timedelta(days=1)) == []
    assert len(await drop(database, DAY + timedelta(days=1))) == 8


async def test_expired_tokens_are_deleted(database):
    """A token past its time is deleted; one without an end is not."""
    await database.execute("insert into account (email, username) values ('a@b', 'a')")
    for token, ends in ((b"1", "now() - interval '1 s'"), (b"2", "null"), (b"3", "now() + interval '1 h'")):
        await database.execute(
            f"insert into token (token_hash, token_prefix, email, expiration) values ($1, 'x', 'a@b', {ends})", token
        )

    assert await retention.delete_expired_tokens(database) == 1
    assert await database.fetchval("select count(*) from token") == 2
