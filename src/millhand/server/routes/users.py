"""Who I am, and my tokens."""

from __future__ import annotations

from datetime import datetime

import msgspec
from litestar import MediaType, Router, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET, UnsetType

from millhand.core.errors import BadRequestError, NotFoundError, PermissionDeniedError
from millhand.core.people import READ_ONLY, Identity
from millhand.server.auth import refuse_jobs
from millhand.server.payloads import WireToken, token_payload
from millhand.server.query import page_of
from millhand.server.request import ApiRequest
from millhand.store import people

READ = {"action": "users:read"}
WRITE = {"action": "users:write"}


class GlobalUser(msgspec.Struct, frozen=True, kw_only=True):
    """A person on this instance."""

    email: str
    login_type: str
    super_admin: bool
    verified: bool
    first_time_user: bool
    role_source: str
    disabled: bool
    username: str
    name: str | UnsetType = UNSET
    company: str | UnsetType = UNSET
    workspace_id: str | UnsetType = UNSET  # the token counts in this workspace only


class WorkspaceUser(msgspec.Struct, frozen=True, kw_only=True):
    """A person in a workspace."""

    workspace_id: str
    email: str
    username: str
    is_admin: bool
    is_super_admin: bool
    created_at: datetime
    operator: bool
    disabled: bool
    groups: list[str]
    folders: list[str]
    folders_read: list[str]
    folders_owners: list[str]
    non_member: bool


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token to be made."""

    label: str | None = None
    expiration: datetime | None = None
    scopes: list[str] | None = None
    workspace_id: str | None = None
    read_only: bool = False


@get("/users/whoami", operation_id="globalWhoami", opt=READ)
async def global_whoami(request: ApiRequest) -> GlobalUser:
    """Tell who the token belongs to."""
    identity = request.identity
    account = await people.account(request.database, identity.email)
    if account is None:
        raise NotFoundError(f"there is no account {identity.email} any more")
    return GlobalUser(
        email=account.email,
        login_type="password",
        super_admin=identity.super_admin,
        verified=True,
        first_time_user=False,
        role_source="manual",
        disabled=account.disabled,
        username=account.username,
        name=account.name or UNSET,
        company=account.company or UNSET,
        workspace_id=identity.workspace_id or UNSET,
    )


@get("/w/{workspace:str}/users/whoami", operation_id="whoami", opt=READ)
async def whoami(request: ApiRequest, workspace: FromPath[str]) -> WorkspaceUser:
    """Tell who the token belongs to in a workspace, and what they may do there."""
    identity, member = request.identity, request.member
    since = await people.member_since(request.database, workspace, identity.email)
    return WorkspaceUser(
        workspace_id=workspace,
        email=identity.email,
        username=member.username,
        is_admin=member.is_admin,
        is_super_admin=identity.super_admin,
        created_at=since or request.services.clock.now(),
        operator=member.operator,
        disabled=False,
        groups=["all"],
        folders=[],
        folders_read=[],
        folders_owners=[],
        non_member=since is None,
    )


@post("/users/tokens/create", media_type=MediaType.TEXT, operation_id="createToken", opt=WRITE)
async def create_token(request: ApiRequest, data: JSONBody[NewToken]) -> str:
    """Make a token with at most the rights of the one that asks, and return it: the only time that it is seen."""
    refuse_jobs(request.identity.job_id, "make tokens")
    if data.expiration is not None and data.expiration.tzinfo is None:
        raise BadRequestError("expiration needs a time zone, like 2030-01-31T08:00:00Z")
    scopes = [READ_ONLY] if data.read_only else data.scopes
    workspace_id = data.workspace_id or request.identity.workspace_id
    _refuse_more_rights(request.identity, scopes, workspace_id)
    if workspace_id is not None:
        await request.services.auth.enter(request.identity, workspace_id)
    return await people.create_token(
        request.database,
        email=request.identity.email,
        label=data.label,
        workspace_id=workspace_id,
        scopes=scopes,
        expiration=data.expiration,
    )


@get("/users/tokens/list", operation_id="listTokens", opt=READ)
async def list_tokens(
    *,
    request: ApiRequest,
    exclude_ephemeral: FromQuery[bool] = False,
    page: FromQuery[int] = 1,
    per_page: FromQuery[int] = 100,
) -> list[WireToken]:
    """List one's own tokens that have not expired."""
    part = page_of(page, per_page)
    found = await people.tokens(
        request.database,
        request.identity.email,
        exclude_ephemeral=exclude_ephemeral,
        limit=part.limit,
        offset=part.offset,
    )
    return [token_payload(token) for token in found]


@delete(
    "/users/tokens/delete/{token_prefix:str}",
    media_type=MediaType.TEXT,
    status_code=200,
    operation_id="deleteToken",
    opt=WRITE,
)
async def delete_token(request: ApiRequest, token_prefix: FromPath[str]) -> str:
    """Revoke one of one's own tokens, named by its first ten characters."""
    refuse_jobs(request.identity.job_id, "revoke tokens")
    revoked = await people.delete_token(request.database, request.identity.email, token_prefix)
    if not revoked:
        raise NotFoundError(f"you have no token that starts with {token_prefix!r}")
    request.services.auth.forget(revoked)
    return f"deleted token {token_prefix}"


def _refuse_more_rights(identity: Identity, scopes: list[str] | None, workspace_id: str | None) -> None:
    if identity.scopes is not None and (scopes is None or not set(scopes) <= set(identity.scopes)):
        raise PermissionDeniedError("a token with scopes makes only tokens with no more scopes than its own")
    if identity.workspace_id is not None and identity.workspace_id != workspace_id:
        raise PermissionDeniedError("a token of one workspace makes tokens of that workspace only")


router = Router("/", route_handlers=[global_whoami, whoami, create_token, list_tokens, delete_token], tags=["users"])
