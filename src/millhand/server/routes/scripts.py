"""Scripts: deploy, read, archive."""

from __future__ import annotations

from typing import Any

from litestar import MediaType, Router, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET

from millhand.core.errors import NotFoundError, PermissionDeniedError
from millhand.core.ids import hash_to_hex
from millhand.core.script import FILE_ENDINGS, Script, check_path
from millhand.server.deploy import Deployment, deploy
from millhand.server.payloads import (
    DeploymentStatus,
    ScriptVersion,
    WireScript,
    script_payload,
    version_payload,
)
from millhand.server.query import LIST_PER_PAGE, page_of, read_hash, read_path
from millhand.server.request import ApiRequest
from millhand.store import scripts
from millhand.store.scripts import ScriptFilter

READ = {"action": "scripts:read"}
WRITE = {"action": "scripts:write"}
ROOT = "/w/{workspace:str}/scripts"


@post("/create", media_type=MediaType.TEXT, operation_id="createScript", opt=WRITE)
async def create_script(
    *, request: ApiRequest, workspace: FromPath[str], data: JSONBody[Deployment], skip_if_noop: FromQuery[bool] = False
) -> str:
    """Deploy a version of a script and return its hash. Its dependencies are resolved by a job, unless a lock is given."""
    request.require_developer()
    services = request.services
    deployed = await deploy(
        services.database,
        services.notifier,
        data,
        workspace_id=workspace,
        identity=request.identity,
        member=request.member,
        skip_if_same=skip_if_noop,
    )
    services.runnables.forget()
    return hash_to_hex(deployed.hash)


@get("/list", operation_id="listScripts", opt=READ)
async def list_scripts(
    *,
    request: ApiRequest,
    workspace: FromPath[str],
    page: FromQuery[int] = 1,
    per_page: FromQuery[int] = LIST_PER_PAGE,
    path_start: FromQuery[str | None] = None,
    path_exact: FromQuery[str | None] = None,
    created_by: FromQuery[str | None] = None,
    languages: FromQuery[str | None] = None,
    kinds: FromQuery[str | None] = None,
    show_archived: FromQuery[bool] = False,
    include_without_main: FromQuery[bool] = False,
) -> list[WireScript]:
    """List scripts, those deployed last first, without their content."""
    part = page_of(page, per_page)
    wanted = ScriptFilter(
        path_start=path_start,
        path_exact=path_exact,
        archived=show_archived,
        created_by=created_by,
        languages=languages.split(",") if languages else None,
        kinds=kinds.split(",") if kinds else None,
        without_main=include_without_main,
    )
    found = await scripts.find(request.database, workspace, wanted, limit=part.limit, offset=part.offset)
    return [script_payload(script) for script in found]


@get("/list_paths", operation_id="listScriptPaths", opt=READ)
async def list_script_paths(request: ApiRequest, workspace: FromPath[str]) -> list[str]:
    """List the paths that have a script."""
    return await scripts.paths(request.database, workspace)


@get("/get/p/{path:path}", operation_id="getScriptByPath", opt=READ)
async def get_script_by_path(request: ApiRequest, workspace: FromPath[str], path: FromPath[str]) -> WireScript:
    """Return the newest version at a path."""
    return script_payload(await _at(request, workspace, path))


@get("/get/h/{script_hash:str}", operation_id="getScriptByHash", opt=READ)
async def get_script_by_hash(request: ApiRequest, workspace: FromPath[str], script_hash: FromPath[str]) -> WireScript:
    """Return one version."""
    return script_payload(await _of_hash(request, workspace, script_hash))


@get("/raw/p/{path:path}", media_type=MediaType.TEXT, operation_id="rawScriptByPath", opt=READ)
async def raw_script_by_path(request: ApiRequest, workspace: FromPath[str], path: FromPath[str]) -> str:
    """Return the code at a path, which may end like the file of its language."""
    path = path.removeprefix("/")
    for candidate in (path, *_without_ending(path)):
        script = await scripts.latest(request.database, workspace, check_path(candidate))
        if script is not None:
            return script.content
    raise _none_at(workspace, path)


@get("/raw/h/{script_hash:str}", media_type=MediaType.TEXT, operation_id="rawScriptByHash", opt=READ)
async def raw_script_by_hash(request: ApiRequest, workspace: FromPath[str], script_hash: FromPath[str]) -> str:
    """Return the code of one version; the hash may have the ending of a file."""
    return (await _of_hash(request, workspace, script_hash.partition(".")[0])).content


@get("/exists/p/{path:path}", operation_id="existsScriptByPath", opt=READ)
async def exists_script_by_path(request: ApiRequest, workspace: FromPath[str], path: FromPath[str]) -> bool:
    """Tell whether there is a script at a path."""
    return await scripts.latest(request.database, workspace, read_path(path)) is not None


@get("/history/p/{path:path}", operation_id="getScriptHistoryByPath", opt=READ)
async def get_script_history(
    request: ApiRequest,
    workspace: FromPath[str],
    path: FromPath[str],
    page: FromQuery[int] = 1,
    per_page: FromQuery[int] = 100,
) -> list[ScriptVersion]:
    """List the versions at a path, newest first."""
    part = page_of(page, per_page)
    versions = await scripts.history(request.database, workspace, read_path(path), limit=part.limit, offset=part.offset)
    return [version_payload(version) for version in versions]


@get("/deployment_status/h/{script_hash:str}", operation_id="getScriptDeploymentStatus", opt=READ)
async def get_deployment_status(
    request: ApiRequest, workspace: FromPath[str], script_hash: FromPath[str]
) -> DeploymentStatus:
    """Tell whether the dependencies of a version are resolved, and by which job."""
    script = await _of_hash(request, workspace, script_hash)
    return DeploymentStatus(
        lock=UNSET if script.lock is None else script.lock,
        lock_error_logs=script.lock_error or UNSET,
        job_id=script.lock_job_id or UNSET,
    )


@post(
    "/archive/p/{path:path}", status_code=200, media_type=MediaType.TEXT, operation_id="archiveScriptByPath", opt=WRITE
)
async def archive_script_by_path(request: ApiRequest, workspace: FromPath[str], path: FromPath[str]) -> str:
    """Archive a script: it can't be run by its path any more."""
    request.require_developer()
    path = read_path(path)
    if not await scripts.archive(request.database, workspace, path):
        raise _none_at(workspace, path)
    request.services.runnables.forget()
    return f"archived {path}"


@post("/archive/h/{script_hash:str}", status_code=200, operation_id="archiveScriptByHash", opt=WRITE)
async def archive_script_by_hash(
    request: ApiRequest, workspace: FromPath[str], script_hash: FromPath[str]
) -> WireScript:
    """Archive one version."""
    request.require_developer()
    if not await scripts.archive(request.database, workspace, read_hash(script_hash)):
        raise _none_of_hash(workspace, script_hash)
    request.services.runnables.forget()
    return script_payload(await _of_hash(request, workspace, script_hash))


@post("/delete/p/{path:path}", status_code=200, operation_id="deleteScriptByPath", opt=WRITE)
async def delete_script_by_path(request: ApiRequest, workspace: FromPath[str], path: FromPath[str]) -> str:
    """Erase the code of all versions at a path; jobs of the past stay known."""
    _require_admin_to_delete(request)
    path = read_path(path)
    if not await scripts.delete(request.database, workspace, path):
        raise _none_at(workspace, path)
    request.services.runnables.forget()
    return path


@post("/delete/h/{script_hash:str}", status_code=200, operation_id="deleteScriptByHash", opt=WRITE)
async def delete_script_by_hash(
    request: ApiRequest, workspace: FromPath[str], script_hash: FromPath[str]
) -> WireScript:
    """Erase the code of one version."""
    _require_admin_to_delete(request)
    if not await scripts.delete(request.database, workspace, read_hash(script_hash)):
        raise _none_of_hash(workspace, script_hash)
    request.services.runnables.forget()
    return script_payload(await _of_hash(request, workspace, script_hash))


async def _at(request: ApiRequest, workspace: str, path: str) -> Script:
    path = read_path(path)
    script = await scripts.latest(request.database, workspace, path)
    if script is None:
        raise _none_at(workspace, path)
    return script


async def _of_hash(request: ApiRequest, workspace: str, text: str) -> Script:
    script = await scripts.get(request.database, workspace, read_hash(text))
    if script is None:
        raise _none_of_hash(workspace, text)
    return script


def _require_admin_to_delete(request: ApiRequest) -> None:
    if not request.member.is_admin:
        raise PermissionDeniedError("only admins of the workspace erase scripts; archive it instead")


def _none_at(workspace: str, path: str) -> NotFoundError:
    return NotFoundError(f"there is no script at {path} in workspace {workspace}")


def _none_of_hash(workspace: str, text: str) -> NotFoundError:
    return NotFoundError(f"there is no script {text} in workspace {workspace}")


def _without_ending(path: str) -> list[str]:
    endings = sorted(FILE_ENDINGS, key=len, reverse=True)
    return [path.removesuffix(ending) for ending in endings if path.endswith(ending)]


_handlers: list[Any] = [
    create_script, list_scripts, list_script_paths, get_script_by_path, get_script_by_hash, raw_script_by_path,
    raw_script_by_hash, exists_script_by_path, get_script_history, get_deployment_status, archive_script_by_path,
    archive_script_by_hash, delete_script_by_path, delete_script_by_hash,
]  # fmt: skip
router = Router(ROOT, route_handlers=_handlers, tags=["scripts"])
