"""Deploying a script: a new version after the newest one, and a job that resolves its dependencies."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from millhand.core.errors import BadRequestError, ConflictError
from millhand.core.ids import hash_from_hex, hash_to_hex, new_id
from millhand.core.job import JobKind, NewJob
from millhand.core.people import Identity, Member
from millhand.core.script import (
    Language,
    NewScript,
    Script,
    ScriptOptions,
    check_path,
    parse_language,
    script_hash,
)
from millhand.core.signature import MissingMainError, parse_signature
from millhand.core.tags import DEPENDENCY_TAG, check_tag
from millhand.store import queue, scripts
from millhand.store.notify import Notifier
from millhand.store.pool import Database
from millhand.store.scripts import Head

# Languages whose imports are resolved once, at deployment. The others have nothing to resolve.
LOCKED_LANGUAGES = frozenset({Language.PYTHON3, Language.BUN, Language.DENO, Language.GO})

_MAX_SECONDS = 2**31 - 1
_OPTIONS = frozenset(ScriptOptions.__struct_fields__)


class Deployment(NewScript, frozen=True, kw_only=True, omit_defaults=True):
    """What clients send to deploy a script (wire: NewScript)."""

    auto_parent: bool = False  # whatever is the newest version is the parent; `parent_hash` is a hint


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    hash: int
    is_new: bool  # False: the newest version is the same already


async def deploy(
    database: Database,
    notifier: Notifier,
    new: Deployment,
    *,
    workspace_id: str,
    identity: Identity,
    member: Member,
    skip_if_same: bool = False,
) -> Deployed:
    """Add a version of a script, and push the job that resolves its dependencies where it has to be done.

    Raises BadRequestError for what can't be a script, ConflictError where `parent_hash` is not the newest version.
    """
    draft = _draft(new, workspace_id=workspace_id, created_by=member.username)
    async with database.transaction() as connection:
        head = await scripts.lock_path(connection, workspace_id, new.path)
        if skip_if_same and head is not None and not head.gone:
            newest = await scripts.get(connection, workspace_id, head.hash)
            if newest is not None and _same(newest, draft):
                return Deployed(hash=head.hash, is_new=False)
        script = _after(draft, new, head)
        job = None if script.lock is not None else _lock_job(script, identity, member)
        if job is not None:
            script = msgspec.structs.replace(script, lock_job_id=str(job.id))
        await scripts.insert(connection, script)
        tags = [] if job is None else await queue.push(connection, [job])
    notifier.work(tags)
    return Deployed(hash=script.hash, is_new=True)


def _draft(new: Deployment, *, workspace_id: str, created_by: str) -> Script:
    """Return the script as it will be, but for its hash and its place in the history."""
    check_path(new.path)
    language = parse_language(new.language)
    _check(new)
    has_main, schema = _schema(new, language)
    options = {name: value for name in _OPTIONS if (value := getattr(new, name, None)) is not None}
    if not has_main:
        options["no_main_func"] = True
    return Script(
        hash=0,
        workspace_id=workspace_id,
        path=new.path,
        content=new.content,
        language=language,
        summary=new.summary,
        description=new.description,
        schema=schema,
        lock=new.lock if language in LOCKED_LANGUAGES else "",
        lock_error=None,
        lock_job_id=None,
        parent_hashes=(),
        kind=new.kind or "script",
        tag=check_tag(new.tag) if new.tag else None,
        envs=tuple(new.envs or ()),
        created_by=created_by,
        created_at=datetime.now(UTC),  # as good as any: the database sets it
        archived=False,
        deleted=False,
        options=msgspec.convert(options, ScriptOptions),
    )


def _check(new: Deployment) -> None:
    texts = (new.content, new.summary, new.description, new.lock or "", *(new.envs or ()), *(new.labels or ()))
    if any("\0" in text for text in texts):
        raise BadRequestError("the script has a NUL character; scripts are text")
    for entry in new.envs or ():
        if "=" not in entry:
            raise BadRequestError(f"envs has {entry!r}; each entry must be KEY=VALUE")
    if new.timeout is not None and not 0 < new.timeout <= _MAX_SECONDS:
        raise BadRequestError(f"timeout is {new.timeout}; it must be a number of seconds greater than 0")
    if new.cache_ttl is not None and not 0 <= new.cache_ttl <= _MAX_SECONDS:
        raise BadRequestError(f"cache_ttl is {new.cache_ttl}; it must be a number of seconds, 0 or more")
    if new.priority is not None and not 0 <= new.priority <= 100:  # noqa: PLR2004 - the range of the public API
        raise BadRequestError(f"priority is {new.priority}; it must be between 1 and 100, or 0 for none")


def _schema(new: Deployment, language: Language) -> tuple[bool, msgspec.Raw | None]:
    """Return whether the code has an entry function, and the schema: the one sent, else the one its signature gives."""
    try:
        signature = parse_signature(language, new.content)
    except MissingMainError:
        signature = None
    except BadRequestError:
        if new.schema is None:
            raise
        return True, _raw(new.schema)
    schema = new.schema or (signature and signature.json_schema())
    return signature is not None, _raw(schema) if schema else None


def _raw(schema: dict[str, object]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(schema))


def _after(draft: Script, new: Deployment, head: Head | None) -> Script:
    """Give the script its place after the newest version of its path, and the hash that follows from it."""
    if new.parent_hash is not None and not new.auto_parent:
        _check_parent(new, head)
    parent = None if head is None else head.hash
    parents = () if head is None else (head.hash, *head.parent_hashes)
    value = script_hash(draft.workspace_id, new, parent)
    return msgspec.structs.replace(draft, hash=value, parent_hashes=parents)


def _check_parent(new: Deployment, head: Head | None) -> None:
    assert new.parent_hash is not None
    try:
        parent = hash_from_hex(new.parent_hash)
    except ValueError:
        raise BadRequestError(f"parent_hash {new.parent_hash!r} is not the hash of a script") from None
    if head is None:
        raise BadRequestError(f"parent_hash is given and {new.path} has no version yet; leave it out")
    if head.hash != parent:
        newest = hash_to_hex(head.hash)
        raise ConflictError(f"{new.path} has changed: its newest version is {newest}; look at it and deploy after that")


def _same(newest: Script, draft: Script) -> bool:
    def essence(script: Script) -> tuple[object, ...]:
        schema = None if script.schema is None else msgspec.json.decode(script.schema)
        options = msgspec.structs.replace(script.options, deployment_message=None)
        texts = (script.content, script.summary, script.description, script.language, script.kind, script.tag)
        return (*texts, script.envs, schema, options)

    same_lock = draft.lock is None or draft.lock.strip() == (newest.lock or "").strip()
    return same_lock and essence(newest) == essence(draft)


def _lock_job(script: Script, identity: Identity, member: Member) -> NewJob:
    return NewJob(
        id=new_id(),
        workspace_id=script.workspace_id,
        kind=JobKind.DEPENDENCIES,
        tag=DEPENDENCY_TAG,
        created_by=member.username,
        permissioned_as=f"u/{member.username}",
        email=identity.email,
        runnable_path=script.path,
        runnable_hash=script.hash,
        language=script.language,
    )
