"""Jobs that have been run, run again: the same code with the same arguments, or what is chosen instead of these."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from millhand.core.errors import BadRequestError, MillhandError, NotFoundError
from millhand.core.ids import hash_to_hex
from millhand.core.job import NewJob
from millhand.server import runs
from millhand.server.query import RunOptions
from millhand.server.request import ApiRequest
from millhand.server.runs import BatchItem
from millhand.store import jobs
from millhand.store.jobs import JobRecord

MAX_RERUNS = 10_000


class InputTransform(msgspec.Struct, frozen=True, kw_only=True):
    """What an argument becomes (wire: InputTransform)."""

    type: str
    value: msgspec.Raw = msgspec.Raw(b"null")


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What is to differ for the jobs of one path."""

    input_transforms: dict[str, InputTransform] = {}
    use_latest_version: bool = False


class Reruns(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs to run again, and how (wire: body of batch_rerun_jobs)."""

    job_ids: list[UUID]
    script_options_by_path: dict[str, Choice] = {}
    flow_options_by_path: dict[str, Any] = {}


async def run_again(request: ApiRequest, workspace: str, asked: Reruns) -> str:
    """Push each job anew; return a line for each, in order: the id of the new one, or `Error: ` and why there is none."""
    if len(asked.job_ids) > MAX_RERUNS:
        raise BadRequestError(f"{len(asked.job_ids):,} jobs in one call; at most {MAX_RERUNS:,} are allowed")
    lines: list[str] = []
    again: list[NewJob] = []
    for job_id in asked.job_ids:
        try:
            job = await _anew(request, workspace, job_id, asked)
        except MillhandError as error:
            lines.append(f"Error: job {job_id}: {error}".replace("\n", " "))
        else:
            again.append(job)
            lines.append(str(job.id))
    if again:
        await request.services.pusher.push_many(again)
    return "".join(f"{line}\n" for line in lines)


async def _anew(request: ApiRequest, workspace: str, job_id: UUID, asked: Reruns) -> NewJob:
    old = await jobs.get(request.database, workspace, job_id, with_result=False)
    if old is None:
        raise NotFoundError(f"there is no such job in workspace {workspace}")
    if old.kind not in ("script", "preview"):
        raise BadRequestError(f"jobs of kind {old.kind} can't be run again; scripts and previews can")
    choice = asked.script_options_by_path.get(old.runnable_path or "", Choice())
    return await runs.batch_item(request, workspace, _item(old, choice), RunOptions(timeout=old.timeout_s))


def _item(old: JobRecord, choice: Choice) -> BatchItem:
    args = _args(old, choice)
    if old.raw_code is not None:
        return BatchItem(
            path=old.runnable_path,
            content=old.raw_code,
            language=old.language,
            lock=old.raw_lock,
            args=args,
            tag=old.tag,
        )
    if old.runnable_hash is None or choice.use_latest_version:
        return BatchItem(path=old.runnable_path, args=args)
    return BatchItem(hash=hash_to_hex(old.runnable_hash), args=args)


def _args(old: JobRecord, choice: Choice) -> msgspec.Raw:
    """Return the arguments of a job, the chosen ones in place of its own."""
    try:
        args = msgspec.json.decode(old.args or b"null", type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        raise BadRequestError("its arguments were erased after use") from None
    for name, transform in choice.input_transforms.items():
        if transform.type != "static":
            raise BadRequestError(f"the argument {name} is an expression; only static values are possible here")
        args[name] = transform.value
    return msgspec.Raw(msgspec.json.encode(args))
