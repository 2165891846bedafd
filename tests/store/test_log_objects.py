"""log_objects.sql: stretches of logs on their way to object storage, read back, and erased."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from millhand.core.errors import ObjectMissingError, ObjectStoreError
from millhand.core.ids import new_id
from millhand.core.job import LogChunk
from millhand.core.spill import STEP_UNITS, pieces
from millhand.store import completion, jobs, log_objects, logs, partitions, queue, retention
from tests.support.object_storage import MemoryObjects

from .conftest import new_job, report
from .test_plans import plan, rows_read

LINE = "aé€😀\n"  # one to four bytes each; six units
ROW = LINE * 20_000


class Died(BaseException):
    """The process ends here, as far as the code can tell."""


@pytest.fixture
def objects():
    return MemoryObjects()


async def write(database, job_id, *, n_rows=20, text=ROW):
    """Write a log of 2.3 steps, and return it."""
    for _ in range(n_rows):
        await logs.append(database, [LogChunk(job_id=job_id, text=text)])
    return text * n_rows


async def work(database):
    return pieces(await log_objects.borders(database, limit=64))


async def spill_all(database, objects, **options):
    return [await log_objects.spill(database, objects, piece, **options) for piece in await work(database)]


async def counts(database):
    """How many rows and objects there are, and how many of these are to be deleted."""
    return tuple(
        await database.fetchrow(
            """select (select count(*) from job_log), (select count(*) from log_object where delete_at is null),
                      (select count(*) from log_object where delete_at is not null)"""
        )
    )


async def read_in_parts(database, job_id, objects, *, at_most):
    """Read a log as a follower does, part by part."""
    parts, offset = [], 0
    while True:
        text, reached = await logs.read(database, job_id, offset=offset, at_most=at_most, objects=objects)
        parts.append(text)
        if reached - offset < at_most:
            return "".join(parts)
        offset = reached


async def test_small_logs_are_no_work(database, objects):
    """A log below a step, or one that just has it, stays in the database whole."""
    small, just = new_id(), new_id()
    await write(database, small, n_rows=1, text="x" * (STEP_UNITS - 1))
    await write(database, just, n_rows=1, text="x" * (STEP_UNITS + 1))

    assert await work(database) == []


async def test_a_spilled_log_reads_the_same(database, objects):
    """Whole, from any offset (in the middle of a pair of surrogates too), and in parts: as if it had never moved."""
    job = new_id()
    text = await write(database, job)
    units = text.encode("utf-16-le")
    end = len(units) // 2
    assert all(await spill_all(database, objects))

    (border,) = [int(key[-16:-4]) for key in objects.objects]
    assert await counts(database) == (20 - border // 120_000, 1, 0)
    assert await logs.read(database, job, objects=objects) == (text, end)
    assert await logs.length(database, job) == end
    for offset in (1, 3, 4, 5, border - 3, border - 2, border - 1, border, border + 1, end - 2, end):
        expected = units[2 * offset :].decode("utf-16-le", "ignore")
        assert await logs.read(database, job, offset=offset, objects=objects) == (expected, end)
    for at_most in (1, 100_000, border, border + 1, 2 * end):
        assert await read_in_parts(database, job, objects, at_most=at_most) == text


async def test_writers_go_on_after_a_spill(database, objects, host):
    """What is appended later, by whom and whatever way, comes after what went; and spills in its turn."""
    await queue.push(database, [new_job()])
    (job,) = await host.claim()
    text = await write(database, job.id)
    await spill_all(database, objects)
    text += await write(database, job.id)
    await spill_all(database, objects)
    await completion.complete(database, [report(job, log="the end 😀\n")], host.info.incarnation)

    assert (await counts(database))[1] == 2
    assert await logs.read(database, job.id, objects=objects) == (
        f"{text}the end 😀\n",
        logs.utf16_length(text) + 11,
    )


async def test_a_new_row_at_the_border_is_the_end_of_the_log(database, objects):
    """The end of a log stays in the database, also where it stands right behind a border: writers need its place."""
    job = new_id()
    await write(database, job, n_rows=2, text="x" * STEP_UNITS)
    assert all(await spill_all(database, objects))
    await write(database, job, n_rows=1, text="tail")

    assert await work(database) == []
    assert await logs.read_kept(database, job) == ("x" * STEP_UNITS + "tail", STEP_UNITS)


@pytest.mark.parametrize("dies_in", ["put", "keep"])
async def test_a_crash_loses_and_doubles_nothing(database, objects, monkeypatch, dies_in):
    """A process that dies twice, before or after its upload, leaves a readable log, and the next one makes it right."""
    job = new_id()
    text = await write(database, job)

    async def die(*_):
        raise Died

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(*((objects, "put") if dies_in == "put" else (log_objects, "_keep")), die)
            with pytest.raises(Died):
                await spill_all(database, objects)
        assert await counts(database) == (20, 0, 1)
        assert (await logs.read(database, job, objects=objects))[0] == text

    await spill_all(database, objects)
    assert (await counts(database))[1:] == (1, 0)
    assert (await logs.read(database, job, objects=objects))[0] == text


async def test_a_crash_in_the_exchange_takes_it_back(database, objects, monkeypatch):
    """Rows deleted and the object not yet kept is no state that lasts."""
    job = new_id()
    text = await write(database, job)
    monkeypatch.setattr(
        log_objects.SQL, "_statements", log_objects.SQL._statements | {"keep": "select 1/0 -- $1 $2 $3"}
    )

    with pytest.raises(Exception, match=r"parameter|division|determine"):
        await spill_all(database, objects)
    assert await counts(database) == (20, 0, 1)
    assert (await logs.read(database, job, objects=objects))[0] == text


async def test_what_a_crash_uploaded_is_deleted_when_nothing_came_of_it(database, objects, monkeypatch):
    """An object whose log never took it is deleted when its reservation has run out, not before."""
    job, now = new_id(), datetime.now(UTC)
    await write(database, job)

    async def die(*_):
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(log_objects, "_keep", die)
        with pytest.raises(Died):
            await spill_all(database, objects)

    assert await log_objects.delete_doomed(database, objects) == 0
    assert len(objects.objects) == 1
    later = now + timedelta(seconds=log_objects.RESERVED_S + 60)
    assert await log_objects.delete_doomed(database, objects, now=later) == 1
    assert objects.objects == {}
    assert await counts(database) == (20, 0, 0)


async def test_two_leaders_do_it_once(database, objects):
    """Of two that found the same work one does it, the other finds its rows gone and spoils nothing."""
    job = new_id()
    text = await write(database, job, n_rows=30)
    (piece,) = await work(database)
    sizes = await asyncio.gather(*[log_objects.spill(database, objects, piece) for _ in range(4)])

    assert sum(map(bool, sizes)) == 1
    assert await log_objects.spill(database, objects, piece) == 0
    assert (await counts(database))[1:] == (1, 0)
    assert await log_objects.delete_doomed(database, objects) == 0
    assert (await logs.read(database, job, objects=objects))[0] == text


async def test_a_leader_of_old_news_spoils_nothing(database, objects):
    """One that planned with fewer rows comes late: what it uploads goes again, the log is what the other made it."""
    job = new_id()
    text = await write(database, job, n_rows=11)
    (old,) = await work(database)
    text += await write(database, job, n_rows=20)
    (new,) = await work(database)
    assert old.end_at < new.end_at
    assert await log_objects.spill(database, objects, new)

    assert await log_objects.spill(database, objects, old) == 0
    assert (await counts(database))[1:] == (1, 1)
    assert await log_objects.delete_doomed(database, objects) == 1
    assert list(objects.objects) == [new.key]
    assert (await logs.read(database, job, objects=objects))[0] == text


async def test_a_reservation_that_ran_out_under_the_upload_is_not_kept(database, objects):
    """Where the object was deleted while its writer slept, the rows stay and what was written is deleted."""
    job = new_id()
    text = await write(database, job)
    put, late = objects.put, datetime.now(UTC) + timedelta(days=1)

    async def sleepy_put(key, data):
        assert await log_objects.delete_doomed(database, objects, now=late) == 1
        await put(key, data)

    objects.put = sleepy_put
    assert await spill_all(database, objects) == [0]
    assert await counts(database) == (20, 0, 1)
    assert await log_objects.delete_doomed(database, objects) == 1
    assert objects.objects == {}
    assert (await logs.read(database, job, objects=objects))[0] == text


async def test_object_storage_that_is_away_changes_nothing(database, objects):
    """The log stays where it is; new parts of spilled ones are read on; old ones say that they can't be had."""
    away, spilled = new_id(), new_id()
    await write(database, spilled)
    await spill_all(database, objects)
    text = await write(database, away)
    objects.away = True

    with pytest.raises(ObjectStoreError):
        await spill_all(database, objects)
    assert (await logs.read(database, away, objects=objects))[0] == text
    with pytest.raises(ObjectStoreError):
        await logs.read(database, spilled, objects=objects)
    kept, start = await logs.read_kept(database, spilled)
    assert await logs.read(database, spilled, offset=start, objects=objects) == (kept, start + logs.utf16_length(kept))
    with pytest.raises(ObjectStoreError, match="MILLHAND_OBJECT_STORE"):
        await logs.read(database, spilled)


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: b"x" + data, lambda _: None])
async def test_an_object_that_is_not_what_was_written_is_no_log(database, objects, spoil):
    """An object that is shorter, longer or gone is an error that names it, never a log with a hole."""
    job = new_id()
    await write(database, job)
    await spill_all(database, objects)
    (key,) = objects.objects
    spoilt = spoil(objects.objects.pop(key))
    if spoilt is not None:
        objects.objects[key] = spoilt

    with pytest.raises(ObjectMissingError, match=key):
        await logs.read(database, job, objects=objects)


async def test_a_reader_meets_a_spill_and_an_end(database, objects):
    """A log erased between the look and the reading is empty, not an error."""
    job = new_id()
    await write(database, job)
    await spill_all(database, objects)
    get = objects.get

    async def slow_get(key):
        await database.execute("delete from job_log")
        await logs.doom(database, [job])
        await log_objects.delete_doomed(database, objects)
        return await get(key)

    objects.get = slow_get
    assert await logs.read(database, job, objects=objects) == ("", 0)


async def test_erasing_takes_the_objects_along(database, objects, host):
    """delete_after_use, the admin's deletion and retention leave no object; other jobs' objects stay."""
    await queue.push(database, [new_job(), new_job(), new_job(delete_after_use=True), new_job(delete_after_use=True)])
    claimed = await host.claim(4)
    for job in claimed:
        await write(database, job.id, n_rows=11)
    await spill_all(database, objects)
    stays, deleted, used, fetched = claimed
    await completion.complete(
        database,
        [report(stays), report(deleted), report(used, delete_after_use=True), report(fetched)],
        host.info.incarnation,
    )
    async with database.transaction() as connection:
        await completion.erase(connection, [fetched.id])
    assert await jobs.erase(database, "main", deleted.id)

    assert await log_objects.delete_doomed(database, objects) == 3
    assert [str(stays.id) in key for key in objects.objects] == [True]
    assert await retention.delete_jobs(database, datetime.now(UTC) + timedelta(seconds=1)) == 4
    assert await log_objects.delete_doomed(database, objects) == 1
    assert objects.objects == {}


async def test_an_erasure_meets_a_spill(database, objects, host):
    """A log erased while it is uploaded is gone, and so is the object."""
    await queue.push(database, [new_job()])
    (job,) = await host.claim()
    await write(database, job.id)
    await completion.complete(database, [report(job)], host.info.incarnation)
    put = objects.put

    async def slow_put(key, data):
        await jobs.erase(database, "main", job.id)
        await put(key, data)

    objects.put = slow_put
    assert await spill_all(database, objects) == [0]
    assert await log_objects.delete_doomed(database, objects) == 1
    assert (await counts(database), objects.objects) == ((0, 0, 0), {})


async def test_objects_go_with_their_day(database, objects, host):
    """Where retention drops a day's partitions, the objects of its jobs are found and deleted; younger ones stay."""
    day = datetime(2020, 5, 9, tzinfo=UTC)
    async with database.acquire() as connection:
        await partitions.ensure(connection, now=day)
    old, young = new_job(id=new_id(int(day.timestamp() * 1000))), new_job()
    await queue.push(database, [old, young])
    for job in await host.claim(2):
        await write(database, job.id, n_rows=11)
        await completion.complete(database, [report(job)], host.info.incarnation, now=day)
    await spill_all(database, objects)
    cutoff = day + timedelta(days=2)
    async with database.acquire() as connection:
        assert await partitions.drop_before(connection, cutoff)

    assert await log_objects.doom_left_behind(database, cutoff) == 1
    assert await log_objects.doom_left_behind(database, cutoff) == 0
    assert await log_objects.delete_doomed(database, objects) == 1
    assert [str(young.id) in key for key in objects.objects] == [True]


async def test_object_storage_that_is_away_keeps_its_debts(database, objects):
    """What could not be deleted is deleted when object storage is back."""
    job = new_id()
    await write(database, job)
    await spill_all(database, objects)
    await logs.doom(database, [job])
    objects.away = True
    with pytest.raises(ObjectStoreError):
        await log_objects.delete_doomed(database, objects)
    objects.away = False

    assert await log_objects.delete_doomed(database, objects) == 1
    assert objects.objects == {}


async def test_work_is_found_by_its_index(database):
    """Looking for work reads borders only, however many small logs there are."""
    await database.execute(
        """insert into job_log (job_id, seq, start_at, end_at, text)
           select gen_random_uuid(), 0, 0, 10, 'small' from generate_series(1, 5000)"""
    )
    await database.execute("analyze job_log")
    await write(database, new_id(), n_rows=3, text="x" * STEP_UNITS)
    sql = log_objects.SQL.list_borders
    nodes = await plan(database, sql, 64, 16_384)

    assert len(await log_objects.borders(database, limit=64)) == 2
    assert sum(n["Actual Rows"] * n["Actual Loops"] for n in nodes if n.get("Index Name", "").endswith("_seq_idx")) == 3
    assert rows_read(nodes, "job_log_default") == 0
