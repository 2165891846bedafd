"""From a request to run something to a job in the queue, and on to its result."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, Literal

import msgspec
from litestar import Response

from millhand.core.errors import BadRequestError, NotFoundError, PermissionDeniedError
from millhand.core.ids import hash_to_hex, new_id
from millhand.core.job import JobKind, JobStatus, NewJob
from millhand.core.routing import fill_in, job_tag
from millhand.core.script import check_path, parse_language
from millhand.core.tags import FLOW_TAG, check_tag
from millhand.server import arguments
from millhand.server.query import RunOptions, read_hash, read_path
from millhand.server.request import ApiRequest
from millhand.store import cancel, jobs
from millhand.store.results import Result
from millhand.store.scripts import Runnable

WARNING_HEADER = "x-millhand-warning"
JOB_HEADER = "x-millhand-job"
FAILED_STATUS = 422  # the request was fine, the job was not
CLIENT_GONE_STATUS = 499  # nobody reads it: the client has left


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """Code sent along, to be run once (wire: Preview)."""

    content: str | None = None
    language: str | None = None
    path: str | None = None
    script_hash: str | None = None
    args: msgspec.Raw = msgspec.Raw(b"")
    tag: str | None = None
    kind: Literal["code", "identity", "noop"] | None = None
    lock: str | None = None


class BatchItem(msgspec.Struct, frozen=True, kw_only=True):
    """One of many jobs pushed in a call: a script by path or hash, code sent along, or a `noop`."""

    kind: Literal["script", "preview", "noop", "identity"] | None = None
    path: str | None = None
    hash: str | None = None
    content: str | None = None
    language: str | None = None
    lock: str | None = None
    args: msgspec.Raw = msgspec.Raw(b"")
    tag: str | None = None
    timeout: int | None = None
    priority: int | None = None
    scheduled_for: datetime | None = None


async def script_at(request: ApiRequest, workspace: str, path: str, args: bytes, options: RunOptions) -> NewJob:
    """Return a run of the script at a path; raises NotFoundError where none can be run."""
    path = read_path(path)
    _may_run(request, path)
    runnable = await request.services.runnables.at(workspace, path)
    if runnable is None:
        raise NotFoundError(f"there is no script at {path} in workspace {workspace}")
    if not runnable.locked and runnable.lock_error is not None:
        raise NotFoundError(
            f"the script at {path} can't be run: its dependencies could not be resolved: {runnable.lock_error}"
        )
    return script_run(request, workspace, runnable, args, options)


async def script_of_hash(
    request: ApiRequest, workspace: str, script_hash: int, args: bytes, options: RunOptions
) -> NewJob:
    """Return a run of one version of a script; raises NotFoundError where there is none."""
    runnable = await request.services.runnables.of_hash(workspace, script_hash)
    if runnable is None:
        raise NotFoundError(f"there is no script {hash_to_hex(script_hash)} in workspace {workspace}")
    _may_run(request, runnable.path)
    return script_run(request, workspace, runnable, args, options)


def script_run(request: ApiRequest, workspace: str, runnable: Runnable, args: bytes, options: RunOptions) -> NewJob:
    """Return a run of a script, with what its settings and the request say."""
    settings = runnable.options
    tag = job_tag(options.tag, runnable.tag, runnable.language, workspace_id=workspace, args=args)
    return NewJob(
        **_who_and_when(request, workspace, options),
        kind=JobKind.SCRIPT,
        tag=tag,
        args=args,
        runnable_path=runnable.path,
        runnable_hash=runnable.hash,
        language=runnable.language,
        priority=options.priority or settings.priority or 0,
        timeout_s=options.timeout or settings.timeout,
        cache_ttl_s=options.cache_ttl or settings.cache_ttl,
        delete_after_use=bool(settings.delete_after_use),
        restart_unless_cancelled=bool(settings.restart_unless_cancelled),
    )


def preview(request: ApiRequest, workspace: str, sent: Preview, options: RunOptions) -> NewJob:
    """Return a run of code that came along; raises BadRequestError where it is not enough to run."""
    request.require_developer()
    _may_run(request, None)
    args = _sent(sent.args)
    if sent.kind in ("identity", "noop"):
        return instant(request, workspace, JobKind(sent.kind), args, options, tag=options.tag or sent.tag)
    if sent.content is None or sent.language is None:
        raise BadRequestError("a preview needs content and language")
    if "\0" in sent.content:
        raise BadRequestError("the content has a NUL character; scripts are text")
    language = parse_language(sent.language)
    return NewJob(
        **_who_and_when(request, workspace, options),
        kind=JobKind.PREVIEW,
        tag=job_tag(options.tag, sent.tag, language, workspace_id=workspace, args=args),
        args=args,
        runnable_path=check_path(sent.path) if sent.path else None,
        raw_code=sent.content,
        raw_lock=sent.lock,
        language=language,
        priority=options.priority or 0,
        timeout_s=options.timeout,
        cache_ttl_s=options.cache_ttl,
    )


def instant(
    request: ApiRequest, workspace: str, kind: JobKind, args: bytes, options: RunOptions, *, tag: str | None
) -> NewJob:
    """Return a job that runs no code."""
    _may_run(request, None)
    tag = check_tag(fill_in(tag, workspace_id=workspace, args=args)) if tag else FLOW_TAG
    return NewJob(
        **_who_and_when(request, workspace, options), kind=kind, tag=tag, args=args, priority=options.priority or 0
    )


async def batch_item(request: ApiRequest, workspace: str, item: BatchItem, options: RunOptions) -> NewJob:
    """Return one of many jobs that are pushed in a call."""
    args = _sent(item.args)
    if item.kind in ("noop", "identity"):
        return instant(request, workspace, JobKind(item.kind), args, options, tag=item.tag)
    if item.content is not None:
        sent = Preview(
            content=item.content, language=item.language, path=item.path, args=item.args, tag=item.tag, lock=item.lock
        )
        return preview(request, workspace, sent, options)
    if item.hash is not None:
        return await script_of_hash(request, workspace, read_hash(item.hash), args, options)
    if item.path is not None:
        return await script_at(request, workspace, item.path, args, options)
    raise BadRequestError("a job needs a path, a hash, or content with a language")


async def push(request: ApiRequest, job: NewJob) -> dict[str, str]:
    """Put a job into the queue; returns headers that warn where nobody serves its tag."""
    await request.services.pusher.push(job)
    return await warnings(request, job.tag)


async def warnings(request: ApiRequest, tag: str) -> dict[str, str]:
    """Return a header that warns, where nobody serves a tag."""
    warning = await request.services.served_tags.warning(tag)
    return {WARNING_HEADER: warning} if warning else {}


async def push_and_wait(request: ApiRequest, job: NewJob, options: RunOptions) -> Response[Any]:
    """Run a job and answer with its result. The job is canceled when the client goes away, or when it takes too long."""
    await _refuse_when_full(request, options)
    services = request.services
    limit_s = services.settings.timeout_wait_result_s
    with services.hub.awaiting(job.id) as result:
        headers = await push(request, msgspec.structs.replace(job, awaited=True))
        headers[JOB_HEADER] = str(job.id)
        left = asyncio.create_task(_client_left(request))
        try:
            await asyncio.wait((result, left), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
        if result.done():
            return shaped(result.result(), headers)
        gone = left.done()
    await _give_up(request, job, "the client went away" if gone else f"the caller waited {limit_s:g} s")
    if gone:
        return Response("", status_code=CLIENT_GONE_STATUS, media_type="text/plain")
    words = f"Timeout: job {job.id} took longer than {limit_s:g} s and was canceled; run it without waiting instead"
    return Response(words, status_code=504, media_type="text/plain", headers=headers)


async def _client_left(request: ApiRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _give_up(request: ApiRequest, job: NewJob, reason: str) -> None:
    canceled = await cancel.cancel(
        request.database, [job.id], workspace_id=job.workspace_id, by=job.created_by, reason=reason
    )
    announce(request, canceled)


def announce(request: ApiRequest, canceled: cancel.Canceled) -> None:
    """Tell workers and watchers what a cancel did."""
    services = request.services
    services.notifier.canceled(canceled.told)
    services.notifier.ended(canceled.awaited)
    services.hub.ended(canceled.ended)


def shaped(result: Result, headers: dict[str, str]) -> Response[bytes]:
    """Return the answer that a result asks for with `windmill_status_code`, `_content_type` and `_headers`."""
    if result.status not in (JobStatus.SUCCESS, JobStatus.SKIPPED):
        return Response(result.value, status_code=FAILED_STATUS, media_type="application/json", headers=headers)
    if b'"windmill_' in result.value[:1_000_000]:
        wishes = _wishes(result.value)
        if wishes is not None:
            return _as_wished(wishes, headers)
    return Response(result.value, media_type="application/json", headers=headers, status_code=200)


class _Wishes(msgspec.Struct):
    windmill_status_code: int | None = None
    windmill_content_type: str | None = None
    windmill_headers: dict[str, str] | None = None
    result: msgspec.Raw = msgspec.Raw(b"")


def _wishes(value: bytes) -> _Wishes | None:
    try:
        wishes = msgspec.json.decode(value, type=_Wishes)
    except (msgspec.DecodeError, RecursionError):
        return None
    asked = (wishes.windmill_status_code, wishes.windmill_content_type, wishes.windmill_headers)
    if all(wish is None for wish in asked) or not _allowed(wishes):
        return None
    return wishes


def _allowed(wishes: _Wishes) -> bool:
    status, kind = wishes.windmill_status_code, wishes.windmill_content_type
    fields = {**(wishes.windmill_headers or {}), **({"content-type": kind} if kind else {})}
    return (status is None or 200 <= status <= 599) and all(  # noqa: PLR2004 - what HTTP knows
        _TOKEN.issuperset(name) and name and _printable(value) for name, value in fields.items()
    )


def _as_wished(wishes: _Wishes, headers: dict[str, str]) -> Response[bytes]:
    """Build the answer. Whatever it is, a browser that shows it may not let it act as a page of this server."""
    status = wishes.windmill_status_code or 200
    body = b"" if status in _BODILESS else bytes(wishes.result) or b"null"
    kind = wishes.windmill_content_type
    if kind is not None and body.startswith(b'"'):
        body = msgspec.json.decode(body, type=str).encode()
    own = {name.lower(): value for name, value in (wishes.windmill_headers or {}).items()}
    kept = {name: value for name, value in own.items() if name not in _OURS and not name.startswith(_OURS_TOO)}
    guard = {"content-security-policy": "sandbox"}
    return Response(
        body,
        status_code=status,
        media_type=kind or "application/json",
        headers={**kept, **headers, **guard},
    )


async def _refuse_when_full(request: ApiRequest, options: RunOptions) -> None:
    limit = options.queue_limit if options.queue_limit is not None else request.services.settings.queue_limit
    if limit is not None and await jobs.queue_longer_than(request.database, limit):
        raise BadRequestError(f"more than {limit} jobs are queued; try again later")


def _sent(args: msgspec.Raw) -> bytes:
    """Return arguments that came inside a larger body; null means none."""
    return arguments.read(b"" if bytes(args) == b"null" else bytes(args))


def _may_run(request: ApiRequest, path: str | None) -> None:
    if not request.identity.may_run(path):
        raise PermissionDeniedError(f"the scopes of this token do not cover running {path or 'code sent along'}")


def _who_and_when(request: ApiRequest, workspace: str, options: RunOptions) -> dict[str, Any]:
    return {
        "id": options.job_id or new_id(),
        "workspace_id": workspace,
        "created_by": request.member.username,
        "permissioned_as": f"u/{request.member.username}",
        "email": request.identity.email,
        "scheduled_for": options.scheduled_for,
        "parent_job": options.parent_job,
        "root_job": options.root_job,
        "visible_to_owner": not options.invisible_to_owner,
    }


def _printable(value: str) -> bool:
    return value.isascii() and value.isprintable()


_TOKEN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~")
_BODILESS = frozenset({204, 205, 304})  # a body after these would be read as the beginning of the next answer
# What acts on more than the answer that it comes with: the connection, the whole site, the proxy in front of us.
_OURS = frozenset(
    {
        "alt-svc", "clear-site-data", "connection", "content-length", "content-type", "date", "expect-ct", "keep-alive", "nel",
        "origin-agent-cluster", "public-key-pins", "report-to", "reporting-endpoints", "server", "service-worker-allowed",
        "set-cookie", "set-cookie2", "strict-transport-security", "te", "trailer", "transfer-encoding", "upgrade",
        "www-authenticate", "x-content-type-options", "x-lighttpd-send-file", "x-reproxy-url", "x-request-id", "x-sendfile",
    }
)  # fmt: skip
_OURS_TOO = ("proxy-", "x-accel-", "x-millhand-")
