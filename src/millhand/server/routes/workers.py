"""Workers, and what waits for them."""

from __future__ import annotations

from typing import Any

from litestar import Router, get
from litestar.params import FromPath, FromQuery
from msgspec import UNSET

from millhand.core.tags import ALL_DEFAULT_TAGS
from millhand.server.payloads import QueueStatus, WireWorker, worker_payload
from millhand.server.query import page_of
from millhand.server.request import ApiRequest
from millhand.store import migrate, queue, workers

READ = {"action": "workers:read"}
PING_S = 60.0  # a worker that pinged within this time is counted as there


@get("/workers/list", operation_id="listWorkers", opt=READ)
async def list_workers(
    *, request: ApiRequest, page: FromQuery[int] = 1, per_page: FromQuery[int] = 100, ping_since: FromQuery[float] = 300
) -> list[WireWorker]:
    """List the workers that pinged within the last seconds."""
    part = page_of(page, per_page)
    found = await workers.listed(request.database, ping_since_s=ping_since)
    return [worker_payload(worker) for worker in found[part.offset : part.offset + part.limit]]


@get("/workers/get_default_tags", operation_id="geDefaultTags", opt=READ)
async def get_default_tags() -> list[str]:
    """List the tags that workers listen to when nothing else is said."""
    return list(ALL_DEFAULT_TAGS)


@get("/workers/is_default_tags_per_workspace", operation_id="isDefaultTagsPerWorkspace", opt=READ)
async def is_default_tags_per_workspace() -> bool:
    """Tell whether each workspace has default tags of its own."""
    return False


@get("/workers/custom_tags", operation_id="getCustomTags", opt=READ)
async def get_custom_tags(request: ApiRequest) -> list[str]:
    """List the tags beyond the default ones: those the instance names, and those live workers listen to."""
    return await _custom_tags(request)


@get("/w/{workspace:str}/workers/custom_tags", operation_id="getCustomTagsForWorkspace", opt=READ)
async def get_custom_tags_for_workspace(request: ApiRequest, workspace: FromPath[str]) -> list[str]:  # noqa: ARG001 - in the path
    """List the tags beyond the default ones that a workspace may use."""
    return await _custom_tags(request)


@get("/workers/exists_workers_with_tags", operation_id="existsWorkersWithTags", opt=READ)
async def exists_workers_with_tags(request: ApiRequest, tags: FromQuery[str]) -> dict[str, bool]:
    """Tell for each of these tags whether a live worker listens to it."""
    served = set(await workers.served_tags(request.database))
    return {tag.strip(): tag.strip() in served for tag in tags.split(",") if tag.strip()}


@get("/workers/queue_counts", operation_id="getCountsOfJobsWaitingPerTag", opt=READ)
async def queue_counts(request: ApiRequest) -> dict[str, int]:
    """Count the jobs that wait, by tag."""
    return {count.tag: count.n_queued for count in await queue.counts(request.database) if count.n_queued}


@get("/workers/queue_running_counts", operation_id="getCountsOfRunningJobsPerTag", opt=READ)
async def queue_running_counts(request: ApiRequest) -> dict[str, int]:
    """Count the jobs that run, by tag."""
    return {count.tag: count.n_running for count in await queue.counts(request.database) if count.n_running}


@get("/workers/queue_status", operation_id="getQueueStatus", opt=READ)
async def queue_status(request: ApiRequest) -> list[QueueStatus]:
    """Tell for each tag what waits, what runs and how many workers listen to it."""
    counts = {count.tag: count for count in await queue.counts(request.database)}
    listening = _listeners(await workers.listed(request.database, ping_since_s=PING_S))
    return [
        QueueStatus(
            tag=tag,
            waiting=count.n_queued if (count := counts.get(tag)) else 0,
            running=count.n_running if count else 0,
            scheduled=count.n_scheduled if count else 0,
            workers=listening.get(tag, 0),
            delay=UNSET if count is None or count.oldest_s is None else max(count.oldest_s, 0.0),
        )
        for tag in sorted({*counts, *listening})
    ]


def _listeners(found: list[workers.WorkerRow]) -> dict[str, int]:
    count: dict[str, int] = {}
    for worker in found:
        if worker.alive and not worker.draining:
            for tag in worker.tags:
                count[tag] = count.get(tag, 0) + 1
    return count


async def _custom_tags(request: ApiRequest) -> list[str]:
    named: Any = await migrate.setting(request.database, "custom_tags")
    served = await workers.served_tags(request.database)
    listed = [tag for tag in named if isinstance(tag, str)] if isinstance(named, list) else []
    return sorted({*listed, *served} - set(ALL_DEFAULT_TAGS))


_handlers: list[Any] = [
    list_workers, get_default_tags, is_default_tags_per_workspace, get_custom_tags, get_custom_tags_for_workspace,
    exists_workers_with_tags, queue_counts, queue_running_counts, queue_status,
]  # fmt: skip
router = Router("/", route_handlers=_handlers, tags=["workers"])
