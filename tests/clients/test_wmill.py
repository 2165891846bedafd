"""The public API's own Python client, unmodified, against a running stack with real workers."""

from __future__ import annotations

import json
import uuid

import pytest
from wmill import Windmill

from tests.support.stack import wait_until

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("up")]

INSIDE = """
import os
import wmill

def main():
    client = wmill.Windmill()
    job = client.get_job(os.environ["WM_JOB_ID"])
    client.set_progress(30)
    me = client.whoami()
    root = client.get_root_job_id()
    return {"kind": job["job_kind"], "email": me["email"], "progress": client.get_progress(), "root": root == job["id"]}
"""


@pytest.fixture
def client(stack):
    """Give the client, with nothing of its environment set."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WM_JOB_ID", "WM_ROOT_FLOW_JOB_ID", "BASE_INTERNAL_URL", "WM_BASE_URL"):
            patch.delenv(name, raising=False)
        client = Windmill(base_url=stack.url, token=stack.token, workspace="main")
        yield client
        client.client.close()


def test_it_knows_who_and_what(client):
    """The client reads the version and who it is."""
    assert client.version.startswith("CE v")
    assert client.user["email"] == "admin@millhand.local"


def test_it_runs_and_waits(client):
    """Scripts run by path and by hash give their results; the job can be looked at afterwards."""
    assert client.run_script_by_path("u/admin/add", args={"a": 1}) == {"sum": 3}

    job_id = client.run_script_by_path_async("u/admin/add", args={"a": 1, "b": 5})
    assert str(uuid.UUID(job_id)) == job_id
    assert client.wait_job(job_id) == {"sum": 6}
    assert client.get_result(job_id) == {"sum": 6}
    assert client.get_job_status(job_id) == "COMPLETED"
    job = client.get_job(job_id)
    assert (job["success"], job["script_path"], job["args"]) == (True, "u/admin/add", {"a": 1, "b": 5})
    assert "adding" in job["logs"]
    assert client.get_root_job_id(job_id) == job_id
    assert client.run_script_by_hash(job["script_hash"], args={"a": 4}) == {"sum": 6}


def test_it_hears_of_failures(client):
    """A failed job is an exception with the error of the script."""
    with pytest.raises(Exception, match="not today"):
        client.run_script_by_path("u/admin/failing")


def test_it_cancels(client):
    """A running job is canceled, and the one who waits is told."""
    job_id = client.run_script_by_path_async("u/admin/sleep")
    wait_until(lambda: client.get_job_status(job_id) == "RUNNING")

    client.cancel_job(job_id, reason="enough")

    with pytest.raises(Exception, match="enough"):
        client.wait_job(job_id, timeout=30, cleanup=False)


def test_it_gives_up_in_time(client):
    """A wait with a timeout cancels the job."""
    with pytest.raises(TimeoutError):
        client.run_script_by_path("u/admin/sleep", timeout=1, cleanup=False)


def test_it_schedules(client):
    """A job for later waits."""
    job_id = client.run_script_by_path_async("u/admin/add", args={"a": 1}, scheduled_in_secs=3600)

    assert client.get_job_status(job_id) == "WAITING"
    client.cancel_job(job_id)


def test_it_runs_code_sent_along(client):
    """A preview runs and answers in one request."""
    assert client.run_inline_script_preview("def main(x): return x * 2", "python3", {"x": 21}) == 42


def test_it_makes_tokens(client, stack):
    """A token made by the client works."""
    import datetime as dt

    token = client.create_token(duration=dt.timedelta(hours=24))
    other = Windmill(base_url=stack.url, token=token, workspace="main")
    assert other.user["email"] == "admin@millhand.local"
    other.client.close()


def test_it_works_inside_a_job(client, stack):
    """A script that imports the client finds its own job, its person and its progress with its own token."""
    preview = {"content": INSIDE, "language": "python3", "args": {}}

    result = stack.api().post("jobs/run_wait_result/preview", preview)

    assert result == {"kind": "preview", "email": "admin@millhand.local", "progress": 30, "root": True}
    assert json.dumps(result)
