"""Logs larger than memory should hold at once, most of them in object storage: read whole, followed, and shown."""

from __future__ import annotations

import httpx
import pytest

from millhand.core.spill import STEP_UNITS
from millhand.duties.spill import delete_doomed_objects, spill_logs
from millhand.server.follow import PART_UNITS, UNREACHABLE
from millhand.store import logs
from tests.server.conftest import W, eventually
from tests.server.test_follow import Steps, ended, events
from tests.support.object_storage import MemoryObjects

ROW = "aé€😀\n" * 50_000  # 300,000 units; with emoji right at the ends of objects
N_ROWS = 18  # 5.4 mebi-units: two objects, two parts


@pytest.fixture
def objects():
    return MemoryObjects()


@pytest.fixture
async def job(admin, worker):
    """A job that has written a large log, and writes on when the test says so."""
    steps = Steps()
    await worker(steps)
    job_id = await admin.preview()
    for _ in range(N_ROWS):
        steps.lines.put_nowait(ROW)
    return job_id, steps


@pytest.fixture
async def spilled(job, database, objects):
    """The same, with most of the log in object storage."""
    await wait_for_rows(database, job[0])
    assert await spill_logs(database, objects) == 2
    return job


async def wait_for_rows(database, job_id):
    await eventually(lambda: has_units(database, job_id, N_ROWS * len(ROW.encode("utf-16-le")) // 2))


async def has_units(database, job_id, n_units):
    return await logs.length(database, job_id) == n_units


async def finish(admin, job_id, steps, *lines):
    for line in (*lines, None):
        steps.lines.put_nowait(line)
    await eventually(lambda: ended(admin, job_id))


def units(text):
    return len(text.encode("utf-16-le")) // 2


async def test_a_spilled_log_is_read_whole(admin, spilled):
    """get_logs has all of it, the tail comes from the database, and the job shows its end and says where the rest is."""
    await finish(admin, *spilled, "last 😀\n")
    job_id, text = spilled[0], ROW * N_ROWS + "last 😀\n"

    assert (await admin.get(f"{W}/jobs_u/get_logs/{job_id}")).text == text
    assert text.endswith((await admin.get(f"{W}/jobs_u/get_completed_logs_tail/{job_id}")).text)
    for path in (f"jobs_u/get/{job_id}", f"jobs_u/completed/get/{job_id}"):
        note, _, shown = (await admin.get(f"{W}/{path}")).json()["logs"].partition("\n")
        assert "get_logs" in note
        assert text.endswith(shown)
        assert units(shown) > 10_000


@pytest.mark.parametrize("is_spilled", [True, False])
async def test_updates_come_in_parts(admin, database, objects, job, is_spilled):
    """getupdate with offsets gives the log in parts and the end with the last; without one it tells the end at once."""
    job_id, steps = job
    await wait_for_rows(database, job_id)
    if is_spilled:
        await spill_logs(database, objects)
    await finish(admin, job_id, steps, "last\n")
    parts, offset, update = [], 0, {}
    while not update.get("completed"):
        answer = await admin.get(f"{W}/jobs_u/getupdate/{job_id}", params={"running": True, "log_offset": offset})
        update = answer.json()
        parts.append(update.get("new_logs", ""))
        assert update["log_offset"] == offset + units(parts[-1])
        offset = update["log_offset"]

    assert "".join(parts) == ROW * N_ROWS + "last\n"
    assert len(parts) >= 2
    assert max(map(units, parts)) < PART_UNITS + 4 * STEP_UNITS
    at_once = (await admin.get(f"{W}/jobs_u/getupdate/{job_id}")).json()
    assert (at_once["completed"], at_once["new_logs"]) == (True, parts[0])


async def test_a_stream_goes_on_across_a_spill(admin, database, objects, job):
    """A follower from the start hears each line once, though its log moves away under it, and the end with the last."""
    job_id, steps = job
    await wait_for_rows(database, job_id)
    seen, spills = [], []
    async for event in events(admin, job_id, running=True, log_offset=0):
        seen.append(event)
        if event["log_offset"] >= PART_UNITS and not spills:
            spills.append(await spill_logs(database, objects))
            for line in ("😀 after\n", *[ROW] * 6, "the end\n", None):
                steps.lines.put_nowait(line)

    assert spills == [2]
    assert "".join(event.get("new_logs", "") for event in seen) == ROW * N_ROWS + "😀 after\n" + ROW * 6 + "the end\n"
    assert [event.get("completed", False) for event in seen] == [False] * (len(seen) - 1) + [True]
    assert seen[-1]["log_offset"] == units(ROW * (N_ROWS + 6)) + units("😀 after\nthe end\n")


async def test_old_parts_of_a_store_that_is_away_are_503(admin, objects, spilled):
    """Old parts are an error that says what to do; new ones, the tail and the job are served as ever."""
    objects.away = True
    job_id, steps = spilled
    newest = units(ROW) * (N_ROWS - 1)
    url = f"{W}/jobs_u/getupdate/{job_id}"

    for answer in (await admin.get(f"{W}/jobs_u/get_logs/{job_id}"), await admin.get(url, params={"log_offset": 5})):
        assert answer.status_code == 503
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.text.startswith("Unavailable: object storage")
    assert (await admin.get(url, params={"log_offset": newest})).json()["new_logs"] == ROW
    await finish(admin, job_id, steps, "more\n")
    assert (await admin.get(f"{W}/jobs_u/get_completed_logs_tail/{job_id}")).text.endswith("\nmore\n")
    assert (await admin.get(f"{W}/jobs_u/get/{job_id}")).json()["logs"].endswith("\nmore\n")


async def test_a_stream_passes_over_what_is_away(admin, objects, spilled):
    """A stream from the start says that old lines can't be had now, and goes on with the new ones, at right offsets."""
    objects.away = True
    job_id, steps = spilled
    seen = []
    async for event in events(admin, job_id, running=True, log_offset=0):
        if not seen:
            steps.lines.put_nowait("new 😀\n")
            steps.lines.put_nowait(None)
        seen.append(event)

    text = "".join(event.get("new_logs", "") for event in seen)
    assert text.startswith(UNREACHABLE)
    assert text.endswith("new 😀\n")
    assert text.count(UNREACHABLE) == 1
    assert seen[-1]["completed"]
    assert seen[-1]["log_offset"] == units(ROW * N_ROWS + "new 😀\n")


async def test_a_missing_object_is_502(admin, objects, spilled):
    """Where an object is gone from the store, the error names it: somebody has to restore it."""
    key = min(objects.objects)
    del objects.objects[key]
    answer = await admin.get(f"{W}/jobs_u/get_logs/{spilled[0]}")

    assert answer.status_code == 502
    assert key in answer.text


async def test_a_log_that_breaks_off_does_not_look_whole(admin, database, objects, spilled):
    """Where object storage fails in the middle of an answer, the connection breaks: no client takes half for all."""
    job_id, steps = spilled
    await finish(admin, job_id, steps, *[ROW] * 10)
    assert await spill_logs(database, objects) == 1
    del objects.objects[max(objects.objects)]

    with pytest.raises(httpx.RemoteProtocolError):
        await admin.get(f"{W}/jobs_u/get_logs/{job_id}")


class TestWithoutObjectStorage:
    """A server that was started without the setting."""

    @pytest.fixture
    def objects(self):
        return None

    async def test_a_large_log_is_read_from_the_database(self, admin, database, job):
        """Nothing is different but that large logs come in parts."""
        await wait_for_rows(database, job[0])

        assert (await admin.get(f"{W}/jobs_u/get_logs/{job[0]}")).text == ROW * N_ROWS
        assert (await admin.get(f"{W}/jobs_u/get/{job[0]}")).json()["logs"] == ROW * N_ROWS

    async def test_the_setting_is_named_where_it_is_missed(self, admin, database, job):
        """A log that another server spilled is an error that names the setting."""
        await wait_for_rows(database, job[0])
        await spill_logs(database, MemoryObjects())
        answer = await admin.get(f"{W}/jobs_u/get_logs/{job[0]}")

        assert answer.status_code == 503
        assert "MILLHAND_OBJECT_STORE" in answer.text


async def test_deleting_a_job_deletes_its_objects(admin, database, objects, spilled):
    """The admin's deletion erases the log, wherever it is."""
    await finish(admin, *spilled)
    assert (await admin.post(f"{W}/jobs/completed/delete/{spilled[0]}")).status_code == 200

    assert (await admin.get(f"{W}/jobs_u/get_logs/{spilled[0]}")).text == ""
    assert await delete_doomed_objects(database, objects, retention_s=86_400) == 2
    assert objects.objects == {}
