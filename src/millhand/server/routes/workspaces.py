"""Workspaces: which there are, and new ones."""

from __future__ import annotations

import re

import msgspec
from litestar import MediaType, Router, get, post
from litestar.params import JSONBody

from millhand.core.errors import BadRequestError
from millhand.server.auth import refuse_jobs
from millhand.server.request import ApiRequest
from millhand.store import people

READ = {"action": "workspaces:read"}
WRITE = {"action": "workspaces:write"}
_ID = re.compile(r"[a-zA-Z0-9_-]{1,50}")


class WireWorkspace(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace."""

    id: str
    name: str
    owner: str


class UserWorkspace(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace as one of its people sees it."""

    id: str
    name: str
    username: str
    color: str
    is_dev_workspace: bool
    disabled: bool
    role: str
    capabilities: list[str]


class UserWorkspaces(msgspec.Struct, frozen=True, kw_only=True):
    """The workspaces of one person."""

    email: str
    workspaces: list[UserWorkspace]


class WorkspaceId(msgspec.Struct, frozen=True, kw_only=True):
    """The id of a workspace."""

    id: str


class NewWorkspace(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace to be made."""

    id: str
    name: str
    username: str | None = None  # of its owner in it


@get("/workspaces/list", operation_id="listWorkspaces", opt=READ)
async def list_workspaces(request: ApiRequest) -> list[WireWorkspace]:
    """List the workspaces one may enter."""
    entries = await people.workspaces_of(request.database, request.identity)
    return [
        WireWorkspace(id=each.workspace.id, name=each.workspace.name, owner=each.workspace.owner) for each in entries
    ]


@get("/workspaces/users", operation_id="listUserWorkspaces", opt=READ)
async def list_user_workspaces(request: ApiRequest) -> UserWorkspaces:
    """List the workspaces one may enter, with what one is called there."""
    entries = await people.workspaces_of(request.database, request.identity)
    return UserWorkspaces(email=request.identity.email, workspaces=[_seen(request, entry) for entry in entries])


@post("/workspaces/exists", status_code=200, operation_id="existsWorkspace", opt=READ)
async def exists_workspace(request: ApiRequest, data: JSONBody[WorkspaceId]) -> bool:
    """Tell whether the id of a workspace is taken."""
    return await people.workspace_taken(request.database, data.id)


@post("/workspaces/create", media_type=MediaType.TEXT, operation_id="createWorkspace", opt=WRITE)
async def create_workspace(request: ApiRequest, data: JSONBody[NewWorkspace]) -> str:
    """Make a workspace, whose admin is the one who makes it."""
    request.require_super_admin()
    refuse_jobs(request.identity.job_id, "make workspaces")
    if not _ID.fullmatch(data.id):
        raise BadRequestError(f"{data.id!r} can't be the id of a workspace; use at most 50 letters, digits, _ and -")
    async with request.database.acquire() as connection:
        await people.create_workspace(
            connection,
            workspace_id=data.id,
            name=data.name,
            owner=request.identity.email,
            username=data.username or request.identity.username,
        )
    request.services.auth.forget_memberships(request.identity.email)
    return f"created workspace {data.id}"


def _seen(request: ApiRequest, entry: people.Entry) -> UserWorkspace:
    member = entry.member
    is_admin = member is None or member.is_admin
    return UserWorkspace(
        id=entry.workspace.id,
        name=entry.workspace.name,
        username=member.username if member else request.identity.username,
        color="",
        is_dev_workspace=False,
        disabled=False,
        role="admin" if is_admin else "operator" if member and member.operator else "developer",
        capabilities=[],
    )


router = Router(
    "/",
    route_handlers=[list_workspaces, list_user_workspaces, exists_workspace, create_workspace],
    tags=["workspaces"],
)
