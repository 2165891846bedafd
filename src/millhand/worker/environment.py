"""The environment that a job finds: contextual variables, as Windmill's published clients read them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from millhand.core.ids import hash_to_hex
from millhand.core.job import ClaimedJob
from millhand.worker.settings import WorkerSettings


def job_environment(
    job: ClaimedJob, *, settings: WorkerSettings, token: str, envs: Iterable[str] = ()
) -> dict[str, str]:
    """Return a job's variables: its script's own `KEY=VALUE` first, so that none of them can pose as ours."""
    own = dict(text.split("=", 1) for text in envs if "=" in text)
    job_id, state = str(job.id), state_path(job)
    return own | {
        "WM_WORKSPACE": job.workspace_id,
        "WM_TOKEN": token,
        "WM_EMAIL": job.email,
        "WM_END_USER_EMAIL": job.email,
        "WM_USERNAME": job.created_by,
        "WM_PERMISSIONED_AS": job.permissioned_as,
        "WM_BASE_URL": settings.base_url,
        "BASE_URL": settings.base_url,
        "BASE_INTERNAL_URL": settings.base_internal_url,
        "WM_JOB_ID": job_id,
        "WM_JOB_PATH": job.runnable_path or "",
        "WM_RUNNABLE_ID": hash_to_hex(job.runnable_hash) if job.runnable_hash is not None else "",
        "WM_SCHEDULED_FOR": job.scheduled_for.isoformat(),
        "WM_SCHEDULE_PATH": job.trigger or "",
        "WM_FLOW_JOB_ID": _text(job.parent_job),
        "WM_ROOT_FLOW_JOB_ID": _text(job.root_job or job.parent_job),
        "WM_ROOT_JOB_ID": _text(job.root_job or job.parent_job) or job_id,
        "WM_FLOW_STEP_ID": job.flow_step_id or "",
        "WM_STATE_PATH": state,
        "WM_STATE_PATH_NEW": state,
        "WM_OBJECT_PATH": f"{state}/{job.started_at.date()}/{job_id}",
        "WM_WORKER_GROUP": settings.group,
    }


def state_path(job: ClaimedJob) -> str:
    """Return the resource path at which a script keeps its state: one for each script and for each way of starting it."""
    if job.runnable_path:
        return f"{job.runnable_path}/{_word(job.trigger) if job.trigger else 'user'}"
    return f"u/{_word(job.created_by)}/preview_state"


def _word(text: str) -> str:
    return text if text.isidentifier() else re.sub(r"[^\w-]", "_", text)


def _text(value: object | None) -> str:
    return "" if value is None else str(value)
