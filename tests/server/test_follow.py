"""Following a job: what is new, once or as a stream."""

from __future__ import annotations

import asyncio
import json

import pytest

from millhand.core.job import JobStatus
from millhand.server.settings import ServerSettings
from tests.server.conftest import W, eventually


class Steps:
    """A job that goes on when the test says so."""

    def __init__(self):
        self.lines: asyncio.Queue[str | None] = asyncio.Queue()

    async def __call__(self, job, standin):
        while (line := await self.lines.get()) is not None:
            if line.startswith("%"):
                await standin.source.set_progress(job.id, int(line[1:]))
            elif line.startswith(">"):
                await standin.source.append_stream(job.id, line[1:])
            else:
                await standin.log(job, line)
        return JobStatus.SUCCESS, {"done": True}


async def events(client, job_id, **query):
    """Yield the events of a stream."""
    async with client.stream("GET", f"{W}/jobs_u/getupdate_sse/{job_id}", params=query) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                yield json.loads(line[6:])


async def test_updates_tell_only_what_is_new(admin, worker):
    """getupdate returns logs from an offset in UTF-16 units, `running` when it changes, `completed` at the end."""
    steps = Steps()
    await worker(steps)
    job_id = await admin.preview()
    steps.lines.put_nowait("héllo 😀\n")

    async def has_log():
        first = (await admin.get(f"{W}/jobs_u/getupdate/{job_id}", params={"running": False})).json()
        return first if first.get("new_logs") else None

    first = await eventually(has_log)
    assert (first["running"], first["new_logs"], first["log_offset"]) == (True, "héllo 😀\n", 9)

    steps.lines.put_nowait("more\n")
    known = {"running": True, "log_offset": 9}

    async def has_more():
        more = (await admin.get(f"{W}/jobs_u/getupdate/{job_id}", params=known)).json()
        return more if more.get("new_logs") else None

    more = await eventually(has_more)
    assert (more["new_logs"], "running" in more, "completed" in more) == ("more\n", False, False)

    steps.lines.put_nowait(None)

    async def is_over():
        last = (await admin.get(f"{W}/jobs_u/getupdate/{job_id}", params={"running": True, "log_offset": 14})).json()
        return last if last.get("completed") else None

    last = await eventually(is_over)
    assert (last["completed"], last.get("new_logs"), last["log_offset"]) == (True, None, 14)


async def test_a_stream_follows_a_job_to_its_end(admin, worker):
    """The stream tells logs, progress, pieces of the result and at last the result."""
    steps = Steps()
    await worker(steps)
    job_id = await admin.preview()
    seen = []
    async for event in events(admin, job_id, get_progress=True, running=False):
        seen.append(event)
        if event.get("running"):
            steps.lines.put_nowait("one\n")
        if "one" in event.get("new_logs", ""):
            steps.lines.put_nowait("%40")
        if event.get("progress") == 40 and not any("new_result_stream" in each for each in seen):
            steps.lines.put_nowait(">piece")
        if "new_result_stream" in event:
            steps.lines.put_nowait(None)

    last = seen[-1]
    assert (last["type"], last["completed"], last["only_result"]) == ("update", True, {"done": True})
    assert last["job"]["success"] is True
    assert "".join(event.get("new_logs", "") for event in seen) == "one\n"
    assert [event["new_result_stream"] for event in seen if "new_result_stream" in event] == ["piece"]


async def test_a_stream_of_an_ended_job_ends_at_once(admin, worker):
    """Who comes late gets all of the log and the result in one event."""
    steps = Steps()
    await worker(steps)
    steps.lines.put_nowait("early\n")
    steps.lines.put_nowait(None)
    job_id = await admin.preview()
    await eventually(lambda: ended(admin, job_id))

    seen = [event async for event in events(admin, job_id, only_result=True)]

    assert [(event["new_logs"], event["only_result"], "job" in event) for event in seen] == [
        ("early\n", {"done": True}, False)
    ]
    assert (await admin.get(f"{W}/jobs_u/get_logs/{job_id}")).text == "early\n"
    assert (await admin.get(f"{W}/jobs_u/get_completed_logs_tail/{job_id}")).text == "early\n"


async def test_a_stream_of_no_job_says_so(admin):
    """The stream of an unknown job is one event that says that there is none."""
    unknown = "01890a5d-ac96-774b-bcce-b302099a8057"

    assert [event async for event in events(admin, unknown)] == [{"type": "notfound"}]
    assert (await admin.get(f"{W}/jobs_u/getupdate/{unknown}")).status_code == 404


class TestShortStreams:
    """Streams end after a while, and the client comes back."""

    @pytest.fixture
    def settings(self):
        return ServerSettings(sse_stream_s=0.1, token_cache_s=0.5)

    async def test_a_stream_says_when_its_time_is_over(self, admin):
        """A stream of a job that goes on ends with `timeout`."""
        job_id = await admin.preview()

        seen = [event async for event in events(admin, job_id)]

        assert seen[-1] == {"type": "timeout"}


async def test_a_job_tells_its_progress_through_the_api(admin, worker):
    """set_progress and get_progress are two ends of one thing; other values are refused."""
    steps = Steps()
    await worker(steps)
    job_id = await admin.preview()
    assert (await admin.post(f"{W}/job_metrics/set_progress/{job_id}", json={"percent": 101})).status_code == 400

    async def accepted():
        body = {"percent": 55, "flow_job_id": None}
        return (await admin.post(f"{W}/job_metrics/set_progress/{job_id}", json=body)).status_code == 200

    await eventually(accepted)
    assert (await admin.get(f"{W}/job_metrics/get_progress/{job_id}")).json() == 55
    assert (await admin.get(f"{W}/jobs/worker_is_draining/{job_id}")).json() is False
    steps.lines.put_nowait(None)
    await eventually(lambda: ended(admin, job_id))
    assert (await admin.get(f"{W}/job_metrics/get_progress/{job_id}")).json() is None


async def ended(client, job_id):
    """Tell whether a job has ended."""
    return (await client.get(f"{W}/jobs_u/completed/get_result_maybe/{job_id}")).json()["completed"]
