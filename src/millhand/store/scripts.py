"""Deployed scripts: versions by hash, the newest at each path."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from millhand.core.errors import ConflictError
from millhand.core.script import Language, Script, ScriptOptions
from millhand.store.sql_files import load

SQL = load("scripts")

_options = msgspec.json.Decoder(ScriptOptions)
_encode = msgspec.json.Encoder().encode


class Runnable(msgspec.Struct, frozen=True, kw_only=True):
    """What the server must know of a script to push a run of it."""

    hash: int
    path: str
    language: Language
    tag: str | None
    options: ScriptOptions
    locked: bool  # its dependencies are known
    lock_error: str | None


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The newest version at a path."""

    hash: int
    parent_hashes: tuple[int, ...]
    gone: bool  # archived or deleted


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a path's history."""

    hash: int
    created_at: datetime
    created_by: str
    deployment_message: str | None


class ScriptFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which scripts a list shows; None means all."""

    path_start: str | None = None
    path_exact: str | None = None
    archived: bool = False
    created_by: str | None = None
    languages: list[str] | None = None
    kinds: list[str] | None = None
    without_main: bool = True


async def get(connection: Any, workspace_id: str, script_hash: int) -> Script | None:
    """Return one version of a script."""
    row = await connection.fetchrow(SQL.get_script, workspace_id, script_hash)
    return row and _script(row)


async def latest(connection: Any, workspace_id: str, path: str) -> Script | None:
    """Return the newest version at a path."""
    row = await connection.fetchrow(SQL.latest_script, workspace_id, path)
    return row and _script(row)


async def lock_path(connection: Any, workspace_id: str, path: str) -> Head | None:
    """Have deployments to a path take turns until the transaction ends, and return its newest version."""
    await connection.execute(SQL.lock_path, workspace_id, path)
    row = await connection.fetchrow(SQL.head_of_path, workspace_id, path)
    return row and Head(hash=row["hash"], parent_hashes=tuple(row["parent_hashes"]), gone=row["gone"])


async def insert(connection: Any, script: Script, *, now: datetime | None = None) -> None:
    """Add a version as the newest of its path; raises ConflictError where this very version exists."""
    try:
        await connection.execute(
            SQL.insert_script,
            script.workspace_id,
            script.hash,
            script.path,
            script.content,
            str(script.language),
            script.summary,
            script.description,
            None if script.schema is None else bytes(script.schema),
            script.lock,
            None if script.lock_job_id is None else UUID(script.lock_job_id),
            script.parent_hashes,
            script.kind,
            script.tag,
            script.envs,
            _encode(script.options),
            script.created_by,
            now,
        )
    except asyncpg.UniqueViolationError:
        raise ConflictError(f"this version of {script.path} is deployed already") from None


async def save_lock(
    connection: Any, workspace_id: str, script_hash: int, *, lock: str | None, error: str | None
) -> None:
    """Record what a dependencies job found; a lock that is there stays."""
    await connection.execute(SQL.save_lock, workspace_id, script_hash, lock, error)


async def runnables_at(connection: Any, asked: Sequence[tuple[str, str]]) -> list[Runnable | None]:
    """Return what is to be run for each (workspace, path), in one statement for many callers."""
    workspaces, paths = [workspace for workspace, _ in asked], [path for _, path in asked]
    return _in_order(await connection.fetch(SQL.runnables_at, workspaces, paths), len(asked))


async def runnables_by_hash(connection: Any, asked: Sequence[tuple[str, int]]) -> list[Runnable | None]:
    """Return what is to be run for each (workspace, hash), in one statement for many callers."""
    workspaces, hashes = [workspace for workspace, _ in asked], [value for _, value in asked]
    return _in_order(await connection.fetch(SQL.runnables_by_hash, workspaces, hashes), len(asked))


async def find(connection: Any, workspace_id: str, wanted: ScriptFilter, *, limit: int, offset: int) -> list[Script]:
    """Return the newest version of each path that fits, newest first, without content and schema."""
    rows = await connection.fetch(
        SQL.list_scripts,
        workspace_id,
        wanted.path_start,
        wanted.path_exact,
        wanted.archived,
        wanted.created_by,
        wanted.languages,
        wanted.kinds,
        wanted.without_main,
        limit,
        offset,
    )
    return [_script(row) for row in rows]


async def paths(connection: Any, workspace_id: str) -> list[str]:
    """Return all paths that have a script, sorted."""
    return [row["path"] for row in await connection.fetch(SQL.list_paths, workspace_id)]


async def history(connection: Any, workspace_id: str, path: str, *, limit: int, offset: int) -> list[Version]:
    """Return the versions at a path, newest first."""
    rows = await connection.fetch(SQL.history, workspace_id, path, limit, offset)
    return [Version(**row) for row in rows]


async def archive(connection: Any, workspace_id: str, target: str | int) -> bool:
    """Archive all versions at a path, or one by its hash; False where there is none."""
    statement = SQL.archive_path if isinstance(target, str) else SQL.archive_hash
    return bool(await connection.fetch(statement, workspace_id, target))


async def delete(connection: Any, workspace_id: str, target: str | int) -> bool:
    """Erase the text of all versions at a path, or of one by its hash; False where there is none."""
    statement = SQL.delete_path if isinstance(target, str) else SQL.delete_hash
    return bool(await connection.fetch(statement, workspace_id, target))


def _in_order(rows: Sequence[Any], count: int) -> list[Runnable | None]:
    found: list[Runnable | None] = [None] * count
    for row in rows:
        found[row["nr"] - 1] = Runnable(
            hash=row["hash"],
            path=row["path"],
            language=Language(row["language"]),
            tag=row["tag"],
            options=_options.decode(row["options"]),
            locked=row["locked"],
            lock_error=row["lock_error"],
        )
    return found


def _script(row: Any) -> Script:
    return Script(
        hash=row["hash"],
        workspace_id=row["workspace_id"],
        path=row["path"],
        content=row["content"],
        language=Language(row["language"]),
        summary=row["summary"],
        description=row["description"],
        schema=None if row["schema"] is None else msgspec.Raw(row["schema"]),
        lock=row["lock"],
        lock_error=row["lock_error"],
        lock_job_id=None if row["lock_job_id"] is None else str(row["lock_job_id"]),
        parent_hashes=tuple(row["parent_hashes"]),
        kind=row["kind"],
        tag=row["tag"],
        envs=tuple(row["envs"]),
        created_by=row["created_by"],
        created_at=row["created_at"],
        archived=row["archived"],
        deleted=row["deleted"],
        options=_options.decode(row["options"]),
    )
