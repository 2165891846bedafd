"""The environment of a job."""

from __future__ import annotations

from millhand.core.ids import new_id
from millhand.worker.environment import job_environment, state_path
from millhand.worker.settings import WorkerSettings
from tests.worker.fakes import claimed

# What the published Python client reads, and fails without.
REQUIRED = (
    "BASE_INTERNAL_URL", "WM_BASE_URL", "WM_TOKEN", "WM_WORKSPACE", "WM_JOB_ID", "WM_JOB_PATH", "WM_STATE_PATH",
    "WM_STATE_PATH_NEW", "WM_ROOT_FLOW_JOB_ID", "WM_FLOW_JOB_ID", "WM_FLOW_STEP_ID",
)  # fmt: skip


def test_the_published_client_finds_what_it_reads():
    """All variables are there, as text."""
    parent = new_id()
    job = claimed(runnable_path="f/a/b", runnable_hash=-1, parent_job=parent, flow_step_id="c")
    env = job_environment(job, settings=WorkerSettings(group="g"), token="jwt_x")
    assert set(REQUIRED) <= env.keys()
    assert all(isinstance(value, str) for value in env.values())
    assert (env["WM_JOB_ID"], env["WM_JOB_PATH"], env["WM_RUNNABLE_ID"]) == (str(job.id), "f/a/b", "f" * 16)
    assert (env["WM_FLOW_JOB_ID"], env["WM_ROOT_FLOW_JOB_ID"], env["WM_FLOW_STEP_ID"]) == (
        str(parent),
        str(parent),
        "c",
    )
    assert (env["WM_TOKEN"], env["WM_WORKER_GROUP"], env["WM_PERMISSIONED_AS"]) == ("jwt_x", "g", "u/admin")


def test_a_script_outside_a_flow_has_no_flow():
    """Empty, as the client tests for."""
    env = job_environment(claimed(), settings=WorkerSettings(), token="t")
    assert (env["WM_FLOW_JOB_ID"], env["WM_ROOT_FLOW_JOB_ID"], env["WM_FLOW_STEP_ID"]) == ("", "", "")


def test_a_scripts_own_variables_cannot_pose_as_ours():
    """`envs` of a script are set, but never over a contextual variable."""
    env = job_environment(claimed(), settings=WorkerSettings(), token="t", envs=("A=1=2", "WM_TOKEN=mine", "nonsense"))
    assert (env["A"], env["WM_TOKEN"]) == ("1=2", "t")
    assert "nonsense" not in env


def test_state_belongs_to_the_script_and_the_way_it_was_started():
    """Each trigger has a state of its own; a preview has its user's."""
    assert state_path(claimed(runnable_path="f/a/b")) == "f/a/b/user"
    assert state_path(claimed(runnable_path="f/a/b", trigger="f/s/hourly")) == "f/a/b/f_s_hourly"
    assert state_path(claimed(created_by="bob@x")) == "u/bob_x/preview_state"
