"""Jobs: one by id, lists by filter, counts, cancels, why."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from millhand.core.ids import new_id
from millhand.core.job import JobKind, JobStatus, NewJob
from millhand.store import queue
from tests.server.conftest import W, echo, eventually

UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"


async def run_to_end(client, **fields):
    """Run a preview to its end and return its id."""
    job_id = await client.preview(**fields)

    async def over():
        return (await client.get(f"{W}/jobs_u/completed/get_result_maybe/{job_id}")).json()["completed"]

    await eventually(over)
    return job_id


async def test_a_queued_job_has_all_that_clients_need(admin):
    """A queued job has the keys that the generated client requires, and no nulls."""
    job_id = await admin.preview("def main(): ...", args={"x": 1}, path="u/admin/trial")

    job = (await admin.get(f"{W}/jobs_u/get/{job_id}")).json()

    required = [
        "id",
        "running",
        "canceled",
        "job_kind",
        "permissioned_as",
        "is_flow_step",
        "email",
        "visible_to_owner",
        "tag",
    ]
    assert all(key in job for key in required)
    assert None not in job.values()
    assert (job["type"], job["running"], job["job_kind"], job["permissioned_as"]) == (
        "QueuedJob", False, "preview", "u/admin",
    )  # fmt: skip
    assert (job["raw_code"], job["args"], job["script_path"]) == ("def main(): ...", {"x": 1}, "u/admin/trial")


async def test_a_completed_job_has_all_that_clients_need(admin, worker):
    """A completed job has the keys that the generated client requires, and no nulls but a null result."""
    await worker()
    job_id = await run_to_end(admin, args={"x": 1})

    one = (await admin.get(f"{W}/jobs_u/get/{job_id}")).json()
    same = (await admin.get(f"{W}/jobs_u/completed/get/{job_id}")).json()

    required = (
        "id created_by created_at started_at duration_ms success canceled job_kind permissioned_as is_flow_step "
        "is_skipped email visible_to_owner tag"
    )
    assert all(key in one for key in required.split())
    assert None not in one.values()
    assert one == same
    assert (one["type"], one["success"], one["result"], one["logs"]) == ("CompletedJob", True, {"x": 1}, "")


async def test_results_and_timing(admin, worker):
    """Each way to ask for a result answers as clients expect, before and after the end."""
    job_id = await admin.preview()
    before = (await admin.get(f"{W}/jobs_u/completed/get_result_maybe/{job_id}")).json()
    early = await admin.get(f"{W}/jobs_u/completed/get_result/{job_id}")
    no_timing = await admin.get(f"{W}/jobs_u/completed/get_timing/{job_id}")
    assert before == {"completed": False, "success": None, "result": None, "started": False}
    assert (early.status_code, no_timing.status_code) == (404, 404)

    await worker()
    await eventually(lambda: is_over(admin, job_id))

    after = (await admin.get(f"{W}/jobs_u/completed/get_result_maybe/{job_id}")).json()
    assert after == {"completed": True, "success": True, "result": {}, "started": True}
    assert (await admin.get(f"{W}/jobs_u/completed/get_result/{job_id}")).json() == {}
    assert set((await admin.get(f"{W}/jobs_u/completed/get_timing/{job_id}")).json()) == {
        "created_at", "started_at", "duration_ms",
    }  # fmt: skip
    assert (await admin.get(f"{W}/jobs_u/get_root_job_id/{job_id}")).json() == job_id


async def is_over(client, job_id):
    """Tell whether a job has ended."""
    return (await client.get(f"{W}/jobs_u/completed/get_result_maybe/{job_id}")).json()["completed"]


async def test_a_null_result_is_null(admin, worker):
    """A script that returns nothing has the result null."""

    async def nothing(job, _):
        return JobStatus.SUCCESS, None

    await worker(nothing)
    job_id = await run_to_end(admin)

    assert (await admin.get(f"{W}/jobs_u/completed/get_result/{job_id}")).content == b"null"
    assert (await admin.get(f"{W}/jobs_u/completed/get/{job_id}")).json()["result"] is None


@pytest.mark.parametrize(
    "path",
    [
        "jobs_u/get/{}", "jobs_u/getupdate/{}", "jobs_u/get_logs/{}", "jobs_u/get_args/{}", "jobs_u/why/{}",
        "jobs_u/completed/get/{}", "jobs_u/completed/get_result/{}", "jobs_u/completed/get_result_maybe/{}",
        "jobs_u/completed/get_timing/{}", "jobs_u/get_root_job_id/{}", "jobs/queue/scheduled_for/{}",
        "job_metrics/get_progress/{}", "jobs/worker_is_draining/{}",
    ],
)  # fmt: skip
async def test_unknown_and_malformed_ids(admin, path):
    """An unknown id is not found, a malformed one is refused, both in plain text."""
    unknown = await admin.get(f"{W}/{path.format(UNKNOWN)}")
    malformed = await admin.get(f"{W}/{path.format('not-an-id')}")

    assert (unknown.status_code, unknown.text.partition(":")[0]) == (404, "Not found")
    assert (malformed.status_code, malformed.text.partition(":")[0]) == (400, "Bad request")
    assert unknown.headers["content-type"].startswith("text/plain")


async def test_a_job_of_another_workspace_is_not_found(api, admin):
    """Jobs are seen from their own workspace only."""
    job_id = await admin.preview()

    assert (await admin.get(f"/api/w/admins/jobs_u/get/{job_id}")).status_code == 404
    assert (await admin.post(f"/api/w/admins/jobs_u/queue/cancel/{job_id}", json={})).status_code == 404
    assert (await admin.get(f"{W}/jobs_u/get/{job_id}")).json()["canceled"] is False


async def push(api, **fields):
    """Push a job past the API."""
    defaults = {
        "id": new_id(), "workspace_id": "main", "kind": JobKind.NOOP, "tag": "t", "created_by": "admin",
        "permissioned_as": "u/admin", "email": "admin@millhand.local",
    }  # fmt: skip
    job = NewJob(**{**defaults, **fields})
    await queue.push(api.database, [job])
    return str(job.id)


async def listed(client, kind="", **query):
    """Return the ids of a list."""
    answer = await client.get(f"{W}/jobs/{kind}list", params=query)
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in answer.json()]


async def test_lists_are_newest_first_and_paged(api, admin):
    """Lists go from the newest to the oldest, in pages, or from an id on."""
    ids = [await push(api) for _ in range(5)]

    assert await listed(admin) == ids[::-1]
    assert await listed(admin, order_desc=False) == ids
    assert await listed(admin, per_page=2, page=2) == [ids[2], ids[1]]
    assert await listed(admin, per_page=2, page=0) == await listed(admin, per_page=2, page=1)
    assert await listed(admin, before_id=ids[2]) == [ids[1], ids[0]]


async def test_filters(api, admin, worker):
    """Each filter keeps what it names; a comma is or, `!` is not, `*` a wildcard where allowed."""
    parent = new_id()
    a = await push(api, tag="gpu-big", created_by="ann", runnable_path="u/ann/train")
    b = await push(api, tag="gpu-small", created_by="bob", runnable_path="u/bob/train", args=b'{"x":{"y":1},"z":2}')
    c = await push(api, tag="cpu", kind=JobKind.IDENTITY, parent_job=parent, priority=5)
    d = await push(api, tag="cpu", scheduled_for=datetime.now(UTC) + timedelta(hours=1), trigger_kind="schedule")

    assert await listed(admin, tag="cpu") == [d, c]
    assert await listed(admin, tag="gpu-big,gpu-small") == [b, a]
    assert await listed(admin, tag="!cpu") == [b, a]
    assert await listed(admin, tag="gpu-*", allow_wildcards=True) == [b, a]
    assert await listed(admin, tag="gpu-*") == []
    assert await listed(admin, tag="gpu_big") == []
    assert await listed(admin, created_by="ann,bob") == [b, a]
    assert await listed(admin, script_path_exact="u/ann/train") == [a]
    assert await listed(admin, script_path_start="u/bob/") == [b]
    assert await listed(admin, job_kinds="identity,preview") == [c]
    assert await listed(admin, job_kinds="!identity") == [d, b, a]
    assert await listed(admin, parent_job=str(parent)) == [c]
    assert await listed(admin, has_null_parent=True) == [d, b, a]
    assert await listed(admin, scheduled_for_before_now=True) == [c, b, a]
    assert await listed(admin, is_not_schedule=True) == [c, b, a]
    assert await listed(admin, args='{"x":{"y":1}}') == [b]
    assert await listed(admin, running=True) == []
    assert await listed(admin, created_after=(datetime.now(UTC) - timedelta(hours=1)).isoformat()) == [d, c, b, a]
    assert await listed(admin, created_before=(datetime.now(UTC) - timedelta(hours=1)).isoformat()) == []
    with_args = (await admin.get(f"{W}/jobs/list", params={"include_args": True, "tag": "gpu-small"})).json()
    assert with_args[0]["args"] == {"x": {"y": 1}, "z": 2}


async def test_filters_of_ended_jobs(api, admin, worker):
    """Lists of ended jobs know outcome, label, worker and result."""

    async def as_told(job, standin):
        return (JobStatus.FAILURE, {"error": {}}) if b"bad" in job.args else await echo(job, standin)

    await worker(as_told)
    good = await run_to_end(admin, args={"good": 1})
    bad = await run_to_end(admin, args={"bad": 1})
    waiting = await push(api, tag="nobody")

    assert await listed(admin, success=True) == [good]
    assert await listed(admin, success=False) == [bad]
    assert await listed(admin, status="failure,canceled") == [bad]
    assert await listed(admin, "completed/") == [bad, good]
    assert await listed(admin, "queue/") == [waiting]
    assert await listed(admin, result='{"good":1}') == [good]
    assert set(await listed(admin, worker="w*", allow_wildcards=True)) == {good, bad}
    assert await listed(admin, completed_after=(datetime.now(UTC) + timedelta(hours=1)).isoformat()) == []
    assert await listed(admin, is_skipped=True) == []
    assert (await admin.get(f"{W}/jobs/completed/count")).json() == {"database_length": 2}
    assert (await admin.get(f"{W}/jobs/completed/count_jobs", params={"success": False})).json() == 1
    counts = (await admin.get("/api/jobs/completed/count_by_tag", params={"horizon_secs": 60})).json()
    assert counts == [{"tag": "python3", "count": 2}]
    assert (await admin.get(f"{W}/jobs/list_filtered_uuids", params={"success": True})).json() == [good]


async def test_wrong_filters_are_refused(admin):
    """A filter that can't be read is refused by name."""
    for query in ({"args": "{"}, {"created_after": "x"}, {"per_page": 0}, {"script_hash": "xyz"}, {"running": "maybe"}):
        answer = await admin.get(f"{W}/jobs/list", params=query)
        assert (answer.status_code, next(iter(query)) in answer.text or "hash" in answer.text) == (400, True)


async def test_counts_of_the_queue(api, admin):
    """The queue's size, the place of a time in it, and the database's clock are there."""
    for _ in range(3):
        await push(api)
    later = datetime.now(UTC) + timedelta(hours=1)

    assert (await admin.get(f"{W}/jobs/queue/count")).json() == {"database_length": 3, "suspended": 0}
    position = (await admin.get(f"{W}/jobs/queue/position/{round(later.timestamp() * 1000)}")).json()
    assert position == {"position": 4}
    assert abs((await admin.get("/api/jobs/db_clock")).json() / 1000 - datetime.now(UTC).timestamp()) < 60
    assert (await admin.get(f"{W}/jobs/queue/position/{10**30}")).status_code == 400


async def test_all_workspaces_are_for_superadmins_in_admins(api, admin):
    """Only a superadmin, from the workspace admins, sees the queue of all workspaces."""
    job_id = await push(api)
    ann = await api.person("ann", "main", "admins")
    everywhere = {"all_workspaces": True, "per_page": 100_000}

    assert [job["id"] for job in (await admin.get("/api/w/admins/jobs/queue/list", params=everywhere)).json()] == [
        job_id
    ]
    assert (await admin.get(f"{W}/jobs/queue/list", params=everywhere)).status_code == 403
    assert (await ann.get("/api/w/admins/jobs/queue/list", params=everywhere)).status_code == 403


async def test_canceling_what_waits(api, admin):
    """A job that waits ends at once, with who and why; doing it again is no error; an unknown one is."""
    job_id = await push(api)

    answer = await admin.post(f"{W}/jobs_u/queue/cancel/{job_id}", json={"reason": "not needed"})
    again = await admin.post(f"{W}/jobs_u/queue/cancel/{job_id}")
    unknown = await admin.post(f"{W}/jobs_u/queue/cancel/{UNKNOWN}", json={})

    assert (answer.status_code, answer.text, again.status_code, unknown.status_code) == (200, job_id, 200, 404)
    job = (await admin.get(f"{W}/jobs_u/get/{job_id}")).json()
    assert (job["type"], job["canceled"], job["success"]) == ("CompletedJob", True, False)
    assert (job["canceled_by"], job["canceled_reason"]) == ("admin", "not needed")
    assert job["started_at"] == job["completed_at"]


async def test_canceling_many(api, admin):
    """A selection is canceled in one call; ids of other workspaces are left alone."""
    ids = [await push(api) for _ in range(3)]
    foreign = await push(api, workspace_id="admins")

    answer = await admin.post(f"{W}/jobs/queue/cancel_selection", json=[*ids, foreign, str(uuid4())])

    assert set(answer.json()) == set(ids)
    assert (await admin.get(f"/api/w/admins/jobs_u/get/{foreign}")).json()["canceled"] is False


async def test_force_cancel_ends_what_runs(api, admin, worker):
    """Forced, a job that runs is recorded as canceled whether or not its worker answers."""

    async def deaf(job, standin):
        await standin.canceled[job.id].wait()
        return JobStatus.SUCCESS, 1

    await worker(deaf)
    job_id = await admin.preview()
    await eventually(lambda: api.database.fetchval("select id from job_queue where state = 'running'"))

    await admin.post(f"{W}/jobs_u/queue/force_cancel/{job_id}", json={})

    assert (await admin.get(f"{W}/jobs_u/completed/get/{job_id}")).json()["canceled"] is True


async def test_canceling_a_perpetual_script(api, admin):
    """cancel_persistent ends the runs of a script that restarts."""
    await push(api, runnable_path="u/admin/loop", restart_unless_cancelled=True)

    answer = await admin.post(f"{W}/jobs_u/queue/cancel_persistent/u/admin/loop", json={"reason": "stop"})

    assert (answer.status_code, answer.text) == (200, "canceled 1 jobs of u/admin/loop")


async def test_erasing_a_completed_job(api, admin, worker):
    """Arguments, result and log of an ended job can be erased by admins; that it ran stays known."""
    await worker()
    job_id = await run_to_end(admin, args={"secret": 1})
    ann = await api.person("ann", "main")

    assert (await ann.post(f"{W}/jobs/completed/delete/{job_id}")).status_code == 403
    erased = (await admin.post(f"{W}/jobs/completed/delete/{job_id}")).json()

    assert (erased["deleted"], erased["result"], "args" in erased, "raw_code" in erased) == (True, None, False, False)
    assert (await admin.post(f"{W}/jobs/completed/delete/{UNKNOWN}")).status_code == 404


async def test_started_at_of_many(api, admin, worker):
    """When each of many jobs started, null for those that have not."""
    await worker()
    done = await run_to_end(admin)
    waiting = await push(api, tag="nobody")

    first, second = (await admin.post(f"{W}/jobs_u/queue/get_started_at_by_ids", json=[waiting, done])).json()

    assert (first, second is not None) == (None, True)


async def test_why_a_job_waits(api, admin, worker):
    """The reason a job waits is told in words and data at each of its stations."""
    job_id = await admin.preview()

    async def why(which):
        return (await admin.get(f"{W}/jobs_u/why/{which}")).json()

    lonely = await why(job_id)
    assert (lonely["cause"], lonely["workers"], lonely["tag"]) == ("no_worker", 0, "python3")
    later = await why(await admin.preview(query={"scheduled_in_secs": 7200}))
    assert (later["cause"], "in 2 h" in later["text"] or "1 h 59" in later["text"]) == ("scheduled", True)

    go = asyncio.Event()

    async def hold(job, _):
        await go.wait()
        return JobStatus.SUCCESS, 1

    await worker(hold)
    await eventually(lambda: api.database.fetchval("select id from job_queue where state = 'running'"))
    assert (await why(job_id))["cause"] == "running"
    for _ in range(9):
        last = await admin.preview()
    await eventually(lambda: api.database.fetchval("select count(*) = 8 from job_queue where state = 'running'"))
    busy = await why(last)
    assert (busy["cause"], busy["workers"], busy["workers_busy"], busy["jobs_ahead"]) == ("busy", 8, 8, 1)
    go.set()
    await eventually(lambda: is_over(admin, job_id))
    assert (await why(job_id))["cause"] == "completed"
