"""Running things: now or later, waiting for the result or not, one or thousands."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar import MediaType, Response, Router, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery

from millhand.core.errors import BadRequestError, PermissionDeniedError
from millhand.core.ids import new_id
from millhand.core.job import NewJob
from millhand.server import arguments, bodies, runs
from millhand.server.bodies import TakesArgs, TakesBatch, TakesBatchOf, TakesPreview, TakesReruns
from millhand.server.query import RunOptions, read_hash, run_options
from millhand.server.request import ApiRequest
from millhand.server.rerun import Reruns, run_again
from millhand.server.runs import BatchItem, Preview

RUN = {"action": "jobs:run"}
ROOT = "/w/{workspace:str}/jobs"
MAX_BATCH = 100_000


class BatchOf(msgspec.Struct, frozen=True, kw_only=True):
    """What `add_batch_jobs` makes many of (wire: as benchmarks of the public API send it)."""

    kind: str
    path: str | None = None
    hash: str | None = None
    rawscript: Preview | None = None
    tag: str | None = None
    args: msgspec.Raw = msgspec.Raw(b"")


@post(
    "/run/p/{path:path}", media_type=MediaType.TEXT, operation_id="runScriptByPath", opt=RUN, operation_class=TakesArgs
)
async def run_script_by_path(
    request: ApiRequest, workspace: FromPath[str], path: FromPath[str], options: NamedDependency[RunOptions]
) -> Response[str]:
    """Run the script at a path with the body as its arguments, and return the id of the job."""
    return await _pushed(
        request, await runs.script_at(request, workspace, path, await _args(request, options), options)
    )


@post(
    "/run/h/{script_hash:str}",
    media_type=MediaType.TEXT,
    operation_id="runScriptByHash",
    opt=RUN,
    operation_class=TakesArgs,
)
async def run_script_by_hash(
    request: ApiRequest, workspace: FromPath[str], script_hash: FromPath[str], options: NamedDependency[RunOptions]
) -> Response[str]:
    """Run one version of a script with the body as its arguments, and return the id of the job."""
    args = await _args(request, options)
    return await _pushed(request, await runs.script_of_hash(request, workspace, read_hash(script_hash), args, options))


@post("/run/preview", media_type=MediaType.TEXT, operation_id="runScriptPreview", opt=RUN, operation_class=TakesPreview)
async def run_preview(
    request: ApiRequest, workspace: FromPath[str], options: NamedDependency[RunOptions]
) -> Response[str]:
    """Run code that comes with the request, and return the id of the job."""
    data = await bodies.read(request, Preview)
    return await _pushed(request, runs.preview(request, workspace, data, options))


@post(
    "/run_wait_result/p/{path:path}",
    status_code=200,
    operation_id="runWaitResultScriptByPath",
    opt=RUN,
    operation_class=TakesArgs,
)
async def run_wait_result_by_path(
    request: ApiRequest, workspace: FromPath[str], path: FromPath[str], options: NamedDependency[RunOptions]
) -> Response[Any]:
    """Run the script at a path and answer with its result."""
    job = await runs.script_at(request, workspace, path, await _args(request, options), options)
    return await runs.push_and_wait(request, job, options)


@get("/run_wait_result/p/{path:path}", operation_id="runWaitResultScriptByPathGet", opt=RUN)
async def run_wait_result_by_path_get(
    request: ApiRequest,
    workspace: FromPath[str],
    path: FromPath[str],
    options: NamedDependency[RunOptions],
    payload: FromQuery[str | None] = None,
) -> Response[Any]:
    """Run the script at a path, its arguments as base64 JSON in `payload`, and answer with its result."""
    args = arguments.with_headers(arguments.from_payload(payload), options.include_header, request.headers)
    return await runs.push_and_wait(request, await runs.script_at(request, workspace, path, args, options), options)


@post(
    "/run_wait_result/h/{script_hash:str}",
    status_code=200,
    operation_id="runWaitResultScriptByHash",
    opt=RUN,
    operation_class=TakesArgs,
)
async def run_wait_result_by_hash(
    request: ApiRequest, workspace: FromPath[str], script_hash: FromPath[str], options: NamedDependency[RunOptions]
) -> Response[Any]:
    """Run one version of a script and answer with its result."""
    args = await _args(request, options)
    job = await runs.script_of_hash(request, workspace, read_hash(script_hash), args, options)
    return await runs.push_and_wait(request, job, options)


@get("/run_wait_result/h/{script_hash:str}", operation_id="runWaitResultScriptByHashGet", opt=RUN)
async def run_wait_result_by_hash_get(
    request: ApiRequest,
    workspace: FromPath[str],
    script_hash: FromPath[str],
    options: NamedDependency[RunOptions],
    payload: FromQuery[str | None] = None,
) -> Response[Any]:
    """Run one version of a script, its arguments as base64 JSON in `payload`, and answer with its result."""
    args = arguments.with_headers(arguments.from_payload(payload), options.include_header, request.headers)
    job = await runs.script_of_hash(request, workspace, read_hash(script_hash), args, options)
    return await runs.push_and_wait(request, job, options)


@post(
    "/run_wait_result/preview",
    status_code=200,
    operation_id="runScriptPreviewAndWaitResult",
    opt=RUN,
    operation_class=TakesPreview,
)
async def run_wait_result_preview(
    request: ApiRequest, workspace: FromPath[str], options: NamedDependency[RunOptions]
) -> Response[Any]:
    """Run code that comes with the request and answer with its result."""
    data = await bodies.read(request, Preview)
    return await runs.push_and_wait(request, runs.preview(request, workspace, data, options), options)


@post(
    "/run_inline/preview", status_code=200, operation_id="runScriptPreviewInline", opt=RUN, operation_class=TakesPreview
)
async def run_inline_preview(
    request: ApiRequest, workspace: FromPath[str], options: NamedDependency[RunOptions]
) -> Response[Any]:
    """Run code that comes with the request and answer with its result: here too, on a worker."""
    data = await bodies.read(request, Preview)
    return await runs.push_and_wait(request, runs.preview(request, workspace, data, options), options)


@post("/run/batch", operation_id="runBatch", opt=RUN, operation_class=TakesBatch)
async def run_batch(
    request: ApiRequest, workspace: FromPath[str], options: NamedDependency[RunOptions]
) -> Response[Any]:
    """Push up to 100,000 jobs in one transaction and return their ids in the order given."""
    data = await bodies.read(request, list[BatchItem])
    if len(data) > MAX_BATCH:
        raise BadRequestError(f"{len(data):,} jobs in one call; at most {MAX_BATCH:,} are allowed")
    if options.job_id is not None:
        raise BadRequestError("job_id can't be given for many jobs")
    jobs = [await _batched(request, workspace, item, options, place) for place, item in enumerate(data)]
    return await _pushed_many(request, jobs)


@post("/add_batch_jobs/{n:int}", status_code=200, operation_id="addBatchJobs", opt=RUN, operation_class=TakesBatchOf)
async def add_batch_jobs(
    request: ApiRequest,
    workspace: FromPath[str],
    n: FromPath[int],
    options: NamedDependency[RunOptions],
) -> Response[Any]:
    """Push n jobs that are all alike and return their ids."""
    data = await bodies.read(request, BatchOf)
    if not 0 < n <= MAX_BATCH:
        raise BadRequestError(f"{n:,} jobs in one call; between 1 and {MAX_BATCH:,} are allowed")
    model = await runs.batch_item(request, workspace, _one_of(data), options)
    return await _pushed_many(request, [msgspec.structs.replace(model, id=new_id()) for _ in range(n)])


@post(
    "/run/batch_rerun_jobs",
    media_type=MediaType.TEXT,
    operation_id="batchReRunJobs",
    opt=RUN,
    operation_class=TakesReruns,
)
async def batch_rerun(request: ApiRequest, workspace: FromPath[str]) -> str:
    """Run jobs again, as they were or with other arguments; a line for each tells the new id, or why there is none."""
    if not request.identity.may("jobs:run"):
        raise PermissionDeniedError("running jobs again needs a token with the scope jobs:run, for all scripts")
    return await run_again(request, workspace, await bodies.read(request, Reruns))


def _one_of(data: BatchOf) -> BatchItem:
    if data.kind in ("noop", "identity"):
        return BatchItem(kind=data.kind, args=data.args, tag=data.tag)  # type: ignore[arg-type]
    raw = data.rawscript
    if raw is not None:
        return BatchItem(
            content=raw.content,
            language=raw.language,
            lock=raw.lock,
            args=raw.args if bytes(raw.args) else data.args,
            tag=data.tag or raw.tag,
        )
    return BatchItem(path=data.path, hash=data.hash, args=data.args, tag=data.tag)


async def _batched(request: ApiRequest, workspace: str, item: BatchItem, options: RunOptions, place: int) -> NewJob:
    try:
        own = await run_options(
            request=request,
            scheduled_for=item.scheduled_for,
            timeout=item.timeout,
            priority=item.priority,
        )
        merged = msgspec.structs.replace(
            options,
            scheduled_for=own.scheduled_for or options.scheduled_for,
            timeout=own.timeout or options.timeout,
            priority=own.priority or options.priority,
            tag=item.tag or options.tag,
        )
        return await runs.batch_item(request, workspace, item, merged)
    except BadRequestError as error:
        raise BadRequestError(f"job {place} of the list: {error}") from None


async def _args(request: ApiRequest, options: RunOptions) -> bytes:
    args = arguments.read(await request.body())
    return arguments.with_headers(args, options.include_header, request.headers)


async def _pushed(request: ApiRequest, job: NewJob) -> Response[str]:
    headers = await runs.push(request, job)
    return Response(str(job.id), media_type=MediaType.TEXT, headers=headers)


async def _pushed_many(request: ApiRequest, jobs: list[NewJob]) -> Response[list[UUID]]:
    await request.services.pusher.push_many(jobs)
    headers: dict[str, str] = {}
    for tag in sorted({job.tag for job in jobs}):
        headers = headers or await runs.warnings(request, tag)
    return Response([job.id for job in jobs], headers=headers)


_handlers: list[Any] = [
    run_script_by_path, run_script_by_hash, run_preview, run_wait_result_by_path, run_wait_result_by_path_get,
    run_wait_result_by_hash, run_wait_result_by_hash_get, run_wait_result_preview, run_inline_preview, run_batch,
    add_batch_jobs, batch_rerun,
]  # fmt: skip


def router(*, max_body: int) -> Router:
    """Return the routes; bodies carry arguments and may be large."""
    return Router(
        ROOT,
        route_handlers=_handlers,
        dependencies={"options": Provide(run_options)},
        request_max_body_size=max_body,
        tags=["run"],
    )
