"""Changing what is in the queue: cancel, run now."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar import MediaType, Router, post
from litestar.params import FromPath, FromQuery, JSONBody

from millhand.core.errors import BadRequestError, NotFoundError
from millhand.server.query import read_id, read_path
from millhand.server.request import ApiRequest
from millhand.server.runs import announce
from millhand.store import cancel, jobs, queue

WRITE = {"action": "jobs:write"}
W = "/w/{workspace:str}"
MAX_REASON = 1000


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why something is canceled."""

    reason: str | None = None


@post(
    "/jobs_u/queue/cancel/{job_id:str}",
    status_code=200,
    media_type=MediaType.TEXT,
    operation_id="cancelQueuedJob",
    opt=WRITE,
)
async def cancel_job(
    request: ApiRequest, workspace: FromPath[str], job_id: FromPath[str], data: JSONBody[Reason | None] = None
) -> str:
    """Cancel a job: one that waits ends at once, one that runs is told to stop."""
    return await _cancel(request, workspace, job_id, data, force=False)


@post(
    "/jobs_u/queue/force_cancel/{job_id:str}",
    status_code=200,
    media_type=MediaType.TEXT,
    operation_id="forceCancelQueuedJob",
    opt=WRITE,
)
async def force_cancel_job(
    request: ApiRequest, workspace: FromPath[str], job_id: FromPath[str], data: JSONBody[Reason | None] = None
) -> str:
    """Cancel a job and record that at once, whether or not its worker answers."""
    return await _cancel(request, workspace, job_id, data, force=True)


@post(
    "/jobs_u/queue/cancel_persistent/{path:path}",
    status_code=200,
    media_type=MediaType.TEXT,
    operation_id="cancelPersistentQueuedJobs",
    opt=WRITE,
)
async def cancel_persistent(
    request: ApiRequest, workspace: FromPath[str], path: FromPath[str], data: JSONBody[Reason | None] = None
) -> str:
    """Cancel the runs of a perpetual script, so that none starts again."""
    canceled = await cancel.cancel_persistent(
        request.database, workspace, read_path(path), by=request.member.username, reason=_reason(data)
    )
    announce(request, canceled)
    return f"canceled {len(canceled.ended) + len(canceled.told)} jobs of {read_path(path)}"


@post("/jobs/queue/cancel_selection", status_code=200, operation_id="cancelSelection", opt=WRITE)
async def cancel_selection(
    *,
    request: ApiRequest,
    workspace: FromPath[str],
    data: JSONBody[list[UUID]],
    force_cancel: FromQuery[bool] = False,
    all_workspaces: FromQuery[bool] = False,
) -> list[UUID]:
    """Cancel many jobs; returns those that were canceled, or told to stop."""
    canceled = await cancel.cancel(
        request.database,
        data,
        workspace_id=request.workspace_or_all(workspace, all_workspaces=all_workspaces),
        by=request.member.username,
        force=force_cancel,
    )
    announce(request, canceled)
    return list(dict.fromkeys([*canceled.ended, *canceled.told]))


@post(
    "/jobs/queue/run_now/{job_id:str}",
    status_code=200,
    media_type=MediaType.TEXT,
    operation_id="runQueuedJobNow",
    opt=WRITE,
)
async def run_now(request: ApiRequest, workspace: FromPath[str], job_id: FromPath[str]) -> str:
    """Have a job that is scheduled for later run now."""
    tag = await queue.run_now(request.database, workspace, read_id(job_id))
    if tag is None:
        await _must_exist(request, workspace, job_id)
        raise BadRequestError(f"job {job_id} is not scheduled for later: it waits already, runs, or has ended")
    request.services.notifier.work([tag])
    return job_id


async def _cancel(
    request: ApiRequest, workspace: str, job_id: str, data: JSONBody[Reason | None], *, force: bool
) -> str:
    """Cancel one job. Canceling one that has ended changes nothing and is no error: the caller has what it wants."""
    canceled = await cancel.cancel(
        request.database,
        [read_id(job_id)],
        workspace_id=workspace,
        by=request.member.username,
        reason=_reason(data),
        force=force,
    )
    announce(request, canceled)
    if not canceled.ended and not canceled.told:
        await _must_exist(request, workspace, job_id)
    return job_id


async def _must_exist(request: ApiRequest, workspace: str, job_id: str) -> None:
    if not await jobs.known(request.database, workspace, [read_id(job_id)]):
        raise NotFoundError(f"there is no job {job_id} in workspace {workspace}")


def _reason(data: JSONBody[Reason | None]) -> str | None:
    if data is None or not data.reason:
        return None
    return data.reason.replace("\0", "")[:MAX_REASON]


_handlers: list[Any] = [cancel_job, force_cancel_job, cancel_persistent, cancel_selection, run_now]
router = Router(W, route_handlers=_handlers, tags=["jobs"])
