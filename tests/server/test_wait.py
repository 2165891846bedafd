"""Waiting for results: answered by an event, shaped as wished, canceled when nobody waits any more."""

from __future__ import annotations

import asyncio
import contextlib
from uuid import UUID

import httpx
import msgspec
import pytest

from millhand.core.job import JobStatus
from millhand.server.settings import ServerSettings
from millhand.store import jobs
from tests.server.conftest import W, eventually

PREVIEW = {"content": "def main(): ...", "language": "python3", "args": {"x": 1}}


async def test_the_result_comes_back(admin, worker):
    """run_wait_result answers with the result itself, as JSON, and names the job."""
    await admin.deploy("u/admin/hello")
    await worker()

    by_path = await admin.post(f"{W}/jobs/run_wait_result/p/u/admin/hello", json={"a": [1, None]})
    preview = await admin.post(f"{W}/jobs/run_wait_result/preview", json=PREVIEW)

    assert (by_path.status_code, by_path.json()) == (200, {"a": [1, None]})
    assert by_path.headers["content-type"] == "application/json"
    assert UUID(by_path.headers["x-millhand-job"])
    assert preview.json() == {"x": 1}


async def test_a_failed_job_answers_with_its_error(admin, worker):
    """The answer of a failed job is not a success, and its body is the error."""

    async def fail(job, _):
        return JobStatus.FAILURE, {"error": {"name": "ValueError", "message": "no"}}

    await worker(fail)

    answer = await admin.post(f"{W}/jobs/run_wait_result/preview", json=PREVIEW)

    assert (answer.status_code, answer.json()["error"]["name"]) == (422, "ValueError")


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"windmill_status_code": 201, "result": {"a": 1}}, (201, "application/json", b'{"a":1}')),
        ({"windmill_content_type": "text/csv", "result": "a,b"}, (200, "text/csv; charset=utf-8", b"a,b")),
        ({"windmill_status_code": 204}, (204, "application/json", b"")),
        ({"windmill_status_code": 9000}, (200, "application/json", b'{"windmill_status_code":9000}')),
        ({"windmill_headers": {"X-A": "b\r\nSet-Cookie: c"}, "result": 1}, (200, "application/json", None)),
        ({"windmill_status_code": "x"}, (200, "application/json", b'{"windmill_status_code":"x"}')),
    ],
)
async def test_results_shape_the_answer(admin, worker, result, expected):
    """A result can choose status and content type; one that asks for what HTTP can't do is returned as it is."""

    async def give(job, _):
        return JobStatus.SUCCESS, result

    await worker(give)

    answer = await admin.post(f"{W}/jobs/run_wait_result/preview", json=PREVIEW)

    status, kind, body = expected
    assert (answer.status_code, answer.headers.get("content-type", kind)) == (status, kind)
    assert answer.content == (msgspec.json.encode(result) if body is None else body)


async def test_headers_of_a_result_are_sent_but_for_those_of_the_server(admin, worker):
    """Headers a result asks for go out, cookies do not, and a browser may not run what comes."""

    async def give(job, _):
        wishes = {"X-A": "b", "Set-Cookie": "token=stolen"}
        return JobStatus.SUCCESS, {"windmill_headers": wishes, "windmill_content_type": "text/html", "result": "<b>"}

    await worker(give)

    answer = await admin.post(f"{W}/jobs/run_wait_result/preview", json=PREVIEW)

    assert (answer.headers["x-a"], answer.text) == ("b", "<b>")
    assert "set-cookie" not in answer.headers
    assert answer.headers["content-security-policy"] == "sandbox"


async def test_many_wait_at_once(admin, worker):
    """Every one of many concurrent callers gets its own result."""
    await worker()
    bodies = [{**PREVIEW, "args": {"n": n}} for n in range(40)]

    answers = await asyncio.gather(*(admin.post(f"{W}/jobs/run_wait_result/preview", json=body) for body in bodies))

    assert [answer.json() for answer in answers] == [{"n": n} for n in range(40)]


async def test_the_job_is_canceled_when_the_client_goes_away(api, admin):
    """A caller that hangs up takes its job with it."""
    task = asyncio.create_task(admin.post(f"{W}/jobs/run_wait_result/preview", json=PREVIEW))
    job_id = await eventually(lambda: api.database.fetchval("select id from job_queue"))

    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, httpx.HTTPError):
        await task

    await eventually(lambda: api.database.fetchval("select id from job_completed where status = 'canceled'"))
    job = await jobs.get(api.database, "main", job_id)
    assert job.canceled_reason == "the client went away"


async def test_a_running_job_is_told_when_the_client_goes_away(api, admin, worker):
    """A caller that hangs up has its running job stopped."""
    told = asyncio.Event()

    async def wait(job, standin):
        await standin.canceled[job.id].wait()
        told.set()
        return JobStatus.CANCELED, {"error": {"name": "Canceled"}}

    await worker(wait)
    task = asyncio.create_task(admin.post(f"{W}/jobs/run_wait_result/preview", json=PREVIEW))
    await eventually(lambda: api.database.fetchval("select id from job_queue where state = 'running'"))

    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, httpx.HTTPError):
        await task

    async with asyncio.timeout(10):
        await told.wait()


async def test_a_canceled_job_answers_those_who_wait(api, admin):
    """Who waits for a job that somebody cancels hears of it at once."""
    task = asyncio.create_task(admin.post(f"{W}/jobs/run_wait_result/preview", json=PREVIEW))
    job_id = await eventually(lambda: api.database.fetchval("select id from job_queue"))

    await admin.post(f"{W}/jobs_u/queue/cancel/{job_id}", json={"reason": "enough"})

    answer = await task
    assert (answer.status_code, answer.json()["error"]["name"]) == (422, "Canceled")


async def test_no_notification_is_needed(api, admin, worker, monkeypatch):
    """A result is found though every notification is lost: the sweep asks."""
    monkeypatch.setattr("millhand.store.notify.Notifier.ended", lambda *_: None)
    await worker()

    answer = await admin.post(f"{W}/jobs/run_wait_result/preview", json=PREVIEW)

    assert answer.json() == {"x": 1}


async def test_waiting_survives_the_loss_of_the_listener(api, admin, worker):
    """Connections that break while somebody waits delay the answer and do not lose it."""
    go = asyncio.Event()

    async def hold(job, _):
        await go.wait()
        return JobStatus.SUCCESS, 7

    await worker(hold)
    task = asyncio.create_task(admin.post(f"{W}/jobs/run_wait_result/preview", json=PREVIEW))
    await eventually(lambda: api.database.fetchval("select id from job_queue where state = 'running'"))
    await api.database.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'server%' and datname = current_database()"
    )
    go.set()

    assert (await task).json() == 7


class TestLimits:
    """Limits of waiting."""

    @pytest.fixture
    def settings(self):
        return ServerSettings(timeout_wait_result_s=0.2, token_cache_s=0.5)

    async def test_waiting_ends(self, api, admin):
        """A job that takes longer than the limit is canceled, and the caller told so."""
        answer = await admin.post(f"{W}/jobs/run_wait_result/preview", json=PREVIEW)

        assert answer.status_code == 504
        job = await jobs.get(api.database, "main", UUID(answer.headers["x-millhand-job"]))
        assert job.status is JobStatus.CANCELED

    async def test_a_full_queue_refuses(self, admin):
        """`queue_limit` refuses to wait behind too many jobs."""
        await admin.post(f"{W}/jobs/add_batch_jobs/3", json={"kind": "noop"})

        answer = await admin.post(f"{W}/jobs/run_wait_result/preview", json=PREVIEW, params={"queue_limit": 2})

        assert (answer.status_code, "more than 2 jobs" in answer.text) == (400, True)
