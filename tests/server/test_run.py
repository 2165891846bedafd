"""Running: by path, by hash, previews, batches; the tag, the time, the warning."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import msgspec
import pytest

from millhand.store import jobs, queue
from tests.server.conftest import W, eventually


async def test_run_by_path_answers_with_a_bare_id(api, admin):
    """A run is accepted with 201 and the id of its job as plain text."""
    await admin.deploy("u/admin/hello")

    answer = await admin.post(f"{W}/jobs/run/p/u/admin/hello", json={"x": 2})

    assert (answer.status_code, answer.headers["content-type"]) == (201, "text/plain; charset=utf-8"), answer.text
    assert (await jobs.args_of(api.database, "main", UUID(answer.text))) == b'{"x":2}'


async def test_run_by_hash_runs_that_version(api, admin):
    """A run by hash runs the version named, though a newer one is there."""
    old = await admin.deploy("u/admin/hello", "def main(): return 1")
    await admin.deploy("u/admin/hello", "def main(): return 2")

    answer = await admin.post(f"{W}/jobs/run/h/{old}", json={})

    job = (await admin.get(f"{W}/jobs_u/get/{answer.text}")).json()
    assert job["script_hash"] == old


async def test_run_by_path_prefers_a_version_whose_lock_is_there(admin):
    """While a new version's dependencies are being resolved, runs by path take the one before it."""
    old = await admin.deploy("u/admin/hello", "def main(): return 1")
    new = await admin.deploy("u/admin/hello", "import requests\ndef main(): return 2", lock=None)
    assert new != old

    job = (await admin.get(f"{W}/jobs_u/get/{await admin.run('u/admin/hello')}")).json()

    assert job["script_hash"] == old


async def test_run_of_a_script_whose_lock_failed_says_why(api, admin):
    """A script whose dependencies could not be resolved is not found for running, and the answer says why."""
    await admin.deploy("u/admin/broken", "import nope\ndef main(): pass", lock=None)
    await api.database.execute("update script set lock_error = 'no such package: nope'")

    answer = await admin.post(f"{W}/jobs/run/p/u/admin/broken", json={})

    assert answer.status_code == 404
    assert "no such package: nope" in answer.text


async def test_settings_of_the_script_reach_the_job(api, admin):
    """Tag, priority and timeout of a script are its runs', unless the run says otherwise."""
    await admin.deploy("u/admin/heavy", tag="gpu", priority=7, timeout=30)

    plain = (await admin.get(f"{W}/jobs_u/get/{await admin.run('u/admin/heavy')}")).json()
    special = (await admin.get(f"{W}/jobs_u/get/{await admin.run('u/admin/heavy', tag='cpu', priority=9)}")).json()

    assert (plain["tag"], plain["priority"], plain["timeout"]) == ("gpu", 7, 30)
    assert (special["tag"], special["priority"]) == ("cpu", 9)


async def test_tags_are_filled_in(admin):
    """`$workspace` and `$args[…]` in a tag are replaced."""
    job_id = await admin.preview(args={"where": {"region": "eu"}}, tag="$workspace-$args[where.region]")

    assert (await admin.get(f"{W}/jobs_u/get/{job_id}")).json()["tag"] == "main-eu"


async def test_a_run_can_be_scheduled(api, admin):
    """`scheduled_for` and `scheduled_in_secs` put a job off; `run_now` takes that back."""
    due = datetime.now(UTC) + timedelta(days=1)
    one = await admin.preview(query={"scheduled_for": due.isoformat()})
    other = await admin.preview(query={"scheduled_in_secs": 3600})

    assert (await admin.get(f"{W}/jobs/queue/scheduled_for/{one}")).json() == round(due.timestamp() * 1000)
    counts = {count.tag: count for count in await queue.counts(api.database)}
    assert counts["python3"].n_scheduled == 2

    assert (await admin.post(f"{W}/jobs/queue/run_now/{other}")).status_code == 200
    counts = {count.tag: count for count in await queue.counts(api.database)}
    assert (counts["python3"].n_scheduled, counts["python3"].n_queued) == (1, 1)
    assert (await admin.post(f"{W}/jobs/queue/run_now/{other}")).status_code == 400


async def test_a_tag_that_nobody_serves_is_flagged(admin, worker):
    """A run says at once when no live worker listens to its tag, and does not when one does."""
    await admin.deploy("u/admin/hello")

    lonely = await admin.post(f"{W}/jobs/run/p/u/admin/hello", json={})
    assert "python3" in lonely.headers["x-millhand-warning"]

    await worker()

    async def accepted_without_warning():
        answer = await admin.post(f"{W}/jobs/run/p/u/admin/hello", json={}, params={"tag": "flow"})
        return "x-millhand-warning" not in answer.headers

    await eventually(accepted_without_warning)


async def test_a_job_can_bring_its_id_once(admin):
    """A caller may choose the id of a job; the second job with it is refused."""
    chosen = str(uuid4())
    assert await admin.preview(query={"job_id": chosen}) == chosen

    body = {"content": "def main(): ...", "language": "python3", "args": {}}
    again = await admin.post(f"{W}/jobs/run/preview", json=body, params={"job_id": chosen})

    assert (again.status_code, again.text.partition(":")[0]) == (409, "Conflict")


async def test_concurrent_runs_share_statements_and_refusals_hit_only_the_offender(admin):
    """Of many runs at once, only the one with a taken id is refused."""
    import asyncio

    taken = await admin.preview()
    body = {"content": "def main(): ...", "language": "python3", "args": {}}
    asked = [admin.post(f"{W}/jobs/run/preview", json=body) for _ in range(20)]
    asked.append(admin.post(f"{W}/jobs/run/preview", json=body, params={"job_id": taken}))

    statuses = [answer.status_code for answer in await asyncio.gather(*asked)]

    assert statuses == [201] * 20 + [409]


async def test_batches_are_pushed_in_one_call(api, admin):
    """Thousands of jobs of all kinds go in with one call, in order; one that is wrong refuses all."""
    await admin.deploy("u/admin/hello")
    items = [{"kind": "noop", "tag": "fast"}] * 2500 + [
        {"path": "u/admin/hello", "args": {"x": 1}, "priority": 3},
        {"content": "echo hi", "language": "bash", "tag": "shell"},
    ]

    answer = await admin.post(f"{W}/jobs/run/batch", json=items)

    assert answer.status_code == 201, answer.text
    ids = answer.json()
    assert len(set(ids)) == 2502
    counts = {count.tag: count.n_queued for count in await queue.counts(api.database)}
    assert counts == {"fast": 2500, "python3": 1, "shell": 1}
    wrong = await admin.post(f"{W}/jobs/run/batch", json=[*items, {"content": "x", "language": "cobol"}])
    assert (wrong.status_code, "job 2502" in wrong.text) == (400, True)
    assert sum(count.n_queued for count in await queue.counts(api.database)) == 2502


async def test_jobs_are_run_again(api, admin):
    """The same code with the same arguments, or what is chosen instead; what can't be run again is told in its line."""
    await admin.deploy("u/admin/hello", "def main(x=1): return x")
    one = await admin.run("u/admin/hello", {"x": 1, "y": "a"})
    other = await admin.preview("def main(): return 2", tag="special")
    await admin.deploy("u/admin/hello", "def main(x=1): return 2 * x")
    nobody, noop = str(uuid4()), (await admin.post(f"{W}/jobs/add_batch_jobs/1", json={"kind": "noop"})).json()[0]
    choice = {"use_latest_version": True, "input_transforms": {"x": {"type": "static", "value": 5}}}

    async def again(*ids, **more):
        answer = await admin.post(
            f"{W}/jobs/run/batch_rerun_jobs", json={"job_ids": ids, "flow_options_by_path": {}, **more}
        )
        assert (answer.status_code, answer.headers["content-type"]) == (201, "text/plain; charset=utf-8"), answer.text
        return answer.text.splitlines()

    async def job(job_id):
        return (await admin.get(f"{W}/jobs_u/get/{job_id}")).json()

    same, missing, preview, instant = await again(one, nobody, other, noop, script_options_by_path={})
    assert [(await job(each))["args"] for each in (one, same)] == [{"x": 1, "y": "a"}] * 2
    assert (await job(same))["script_hash"] == (await job(one))["script_hash"]
    assert [(await job(preview))[key] for key in ("raw_code", "tag")] == ["def main(): return 2", "special"]
    assert (missing.partition(":")[0], nobody in missing, "noop" in instant) == ("Error", True, True)
    (newer,) = await again(one, script_options_by_path={"u/admin/hello": choice})
    assert (await job(newer))["args"] == {"x": 5, "y": "a"}
    assert (await job(newer))["script_hash"] != (await job(one))["script_hash"]
    choice["input_transforms"]["x"] = {"type": "javascript", "expr": "1 + 1"}
    (refused,) = await again(one, script_options_by_path={"u/admin/hello": choice})
    assert "only static values" in refused


async def test_add_batch_jobs_makes_many_alike(api, admin):
    """The public API's way to make many jobs returns as many ids."""
    ids = (await admin.post(f"{W}/jobs/add_batch_jobs/50", json={"kind": "noop"})).json()
    raw = {"content": "echo", "language": "bash"}
    more = (await admin.post(f"{W}/jobs/add_batch_jobs/3", json={"kind": "rawscript", "rawscript": raw})).json()

    assert (len(set(ids)), len(set(more))) == (50, 3)
    assert {count.tag: count.n_queued for count in await queue.counts(api.database)} == {"flow": 50, "bash": 3}


async def test_headers_become_arguments_where_asked(api, admin):
    """`include_header` passes request headers to the script."""
    await admin.deploy("u/admin/hello")

    answer = await admin.post(
        f"{W}/jobs/run/p/u/admin/hello", json={"x": 1}, params={"include_header": "X-Trace-Id, X-None"},
        headers={"x-trace-id": "abc"},
    )  # fmt: skip

    args = await jobs.args_of(api.database, "main", UUID(answer.text))
    assert msgspec.json.decode(args) == {"x": 1, "x_trace_id": "abc"}


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ({"timeout": -1}, "timeout"),
        ({"timeout": 0}, "timeout"),
        ({"priority": 101}, "priority"),
        ({"scheduled_in_secs": -5}, "scheduled_in_secs"),
        ({"scheduled_for": "tomorrow"}, "scheduled_for"),
        ({"scheduled_for": "2030-01-01T00:00:00"}, "time zone"),
        ({"tag": "no spaces"}, "tag"),
        ({"tag": "x" * 200}, "tag"),
        ({"job_id": "nonsense"}, "job_id"),
        ({"parent_job": "nonsense"}, "parent_job"),
        ({"retry": "{}"}, "retry"),
        ({"timeout": 10**15}, "timeout"),
        ({"cache_ttl": -1}, "cache_ttl"),
    ],
)
async def test_options_that_make_no_sense_are_refused(admin, query, word):
    """Each wrong option is answered with 400 in plain text that names it."""
    await admin.deploy("u/admin/hello")

    answer = await admin.post(f"{W}/jobs/run/p/u/admin/hello", json={}, params=query)

    assert (answer.status_code, answer.text.partition(":")[0]) == (400, "Bad request")
    assert word in answer.text


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"[1]", "object"),
        (b'"text"', "object"),
        (b"{", "JSON"),
        (b"not json", "JSON"),
        (b'{"a": "\xff\xfe"}', "UTF-8"),
        (b"[" * 200_000, "object"),
        (b'{"a":' + b"[" * 200_000, "nested"),
    ],
)
async def test_arguments_that_are_no_object_are_refused(admin, body, word):
    """The body of a run must be a JSON object in valid UTF-8."""
    await admin.deploy("u/admin/hello")

    answer = await admin.post(f"{W}/jobs/run/p/u/admin/hello", content=body)

    assert answer.status_code == 400
    assert word in answer.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("run/p/u/admin/absent", 404),
        ("run/h/00000000000000ff", 404),
        ("run/h/nonsense", 400),
        ("run/p/u/admin/%2e%2e/x", 400),
        ("run/p/etc/passwd", 400),
        ("run/p/u/ad%00min/x", 400),
    ],
)
async def test_what_is_not_there_is_refused(admin, path, status):
    """Unknown paths and hashes are not found, malformed ones are refused."""
    assert (await admin.post(f"{W}/jobs/{path}", json={})).status_code == status


@pytest.mark.parametrize(
    "body",
    [
        {"content": "x", "language": "cobol", "args": {}},
        {"content": "x", "args": {}},
        {"language": "python3", "args": {}},
        {"content": "x", "language": "python3", "args": [1]},
        {"content": "x\0y", "language": "python3", "args": {}},
        {"content": "x", "language": "python3", "args": {}, "path": "../../etc"},
        {"content": "x", "language": "python3", "args": {}, "tag": "a b"},
        {"content": 1, "language": "python3"},
        [],
    ],
)
async def test_previews_that_make_no_sense_are_refused(admin, body):
    """Each wrong preview is answered with 400."""
    assert (await admin.post(f"{W}/jobs/run/preview", json=body)).status_code == 400


async def test_nul_in_arguments_is_kept(api, admin):
    """An escaped NUL character in the arguments comes back as it was sent."""
    body = b'{"x": "a\\u0000b"}'
    await admin.deploy("u/admin/hello")
    job_id = (await admin.post(f"{W}/jobs/run/p/u/admin/hello", content=body)).text

    assert (await admin.get(f"{W}/jobs_u/get_args/{job_id}")).content == body


async def test_payload_of_a_get_is_base64(admin, worker):
    """GET takes the arguments from `payload`, base64 for URLs."""
    await admin.deploy("u/admin/hello")
    await worker()
    payload = base64.urlsafe_b64encode(b'{"x":"\xc3\xbf\xc3\xbe?"}').decode().rstrip("=")

    answer = await admin.get(f"{W}/jobs/run_wait_result/p/u/admin/hello", params={"payload": payload})
    wrong = await admin.get(f"{W}/jobs/run_wait_result/p/u/admin/hello", params={"payload": "%%%"})

    assert answer.json() == {"x": "ÿþ?"}
    assert wrong.status_code == 400
