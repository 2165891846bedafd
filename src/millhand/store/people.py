"""People: accounts, workspaces, memberships and tokens."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from millhand.core import credentials
from millhand.core.errors import ConflictError
from millhand.core.people import Account, Identity, Member, TokenInfo, Workspace
from millhand.store.pool import Database
from millhand.store.sql_files import load

SQL = load("people")

ADMIN_EMAIL = "admin@millhand.local"
ADMIN_USERNAME = "admin"
FIRST_WORKSPACES = (("admins", "Admins"), ("main", "Main"))


class FirstLogin(msgspec.Struct, frozen=True, kw_only=True):
    """How to log in for the first time. Shown once; only hashes are kept."""

    email: str
    username: str
    password: str
    token: str


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the database knows of a token."""

    identity: Identity
    left_s: float | None  # until it expires, by the database's clock; None: never
    disabled: bool
    untouched: bool  # its last use was noted more than a minute ago

    @property
    def expired(self) -> bool:
        """Tell whether its time is over."""
        return self.left_s is not None and self.left_s <= 0


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace somebody may enter."""

    workspace: Workspace
    member: Member | None  # None: enters as superadmin


class _MemberRow(msgspec.Struct):
    workspace_id: str
    username: str
    is_admin: bool
    operator: bool


_members = msgspec.json.Decoder(list[_MemberRow])


async def bootstrap(database: Database, *, password: str | None = None) -> FirstLogin | None:
    """On an instance without people, make the first workspaces and a superadmin; None where there are people already."""
    password = password or secrets.token_urlsafe(15)
    async with database.transaction() as connection:
        await connection.execute(SQL.lock_bootstrap)
        if await connection.fetchval(SQL.count_accounts):
            return None
        await create_account(
            connection,
            email=ADMIN_EMAIL,
            username=ADMIN_USERNAME,
            password_hash=credentials.hash_password(password),
            super_admin=True,
        )
        for workspace_id, name in FIRST_WORKSPACES:
            if not await connection.fetchval(SQL.workspace_taken, workspace_id):
                await create_workspace(
                    connection, workspace_id=workspace_id, name=name, owner=ADMIN_EMAIL, username=ADMIN_USERNAME
                )
        token = await create_token(connection, email=ADMIN_EMAIL, label="first start")
    return FirstLogin(email=ADMIN_EMAIL, username=ADMIN_USERNAME, password=password, token=token)


async def by_token(connection: Any, token_hash: bytes) -> Known | None:
    """Return who a token belongs to."""
    row = await connection.fetchrow(SQL.identity_of_token, token_hash)
    if row is None:
        return None
    identity = Identity(
        email=row["email"],
        username=row["username"],
        super_admin=row["super_admin"],
        memberships=_memberships(row["members"]),
        scopes=None if row["scopes"] is None else tuple(row["scopes"]),
        workspace_id=row["workspace_id"],
        token_prefix=row["token_prefix"],
    )
    return Known(identity=identity, left_s=row["left_s"], disabled=row["disabled"], untouched=row["untouched"])


async def by_job(connection: Any, *, job_id: UUID, workspace_id: str, email: str, until: int) -> Identity | None:
    """Return whose rights a job has, without what goes beyond its workspace; None unless it runs, or after `until`."""
    row = await connection.fetchrow(SQL.identity_of_job, job_id, workspace_id, email, until)
    if row is None or row["disabled"]:
        return None
    member = _memberships(row["members"]).get(workspace_id)
    if member is None and row["super_admin"]:
        member = Member(username=row["username"], is_admin=True)
    return Identity(
        email=row["email"],
        username=row["username"],
        memberships={} if member is None else {workspace_id: member},
        workspace_id=workspace_id,
        job_id=job_id,
    )


async def touch_token(connection: Any, token_hash: bytes) -> None:
    """Note that a token was used, to the minute."""
    await connection.execute(SQL.touch_token, token_hash)


async def account(connection: Any, email: str) -> Account | None:
    """Return an account by its e-mail."""
    row = await connection.fetchrow(SQL.account, email)
    return row and Account(**row)


async def create_account(
    connection: Any,
    *,
    email: str,
    username: str,
    password_hash: str | None,
    super_admin: bool = False,
    name: str | None = None,
    company: str | None = None,
) -> None:
    """Add an account; raises ConflictError where its e-mail or username is taken."""
    try:
        await connection.execute(SQL.insert_account, email, username, password_hash, super_admin, name, company)
    except asyncpg.UniqueViolationError:
        raise ConflictError(f"an account with the e-mail {email} or the username {username} exists already") from None


async def set_password(connection: Any, email: str, password_hash: str) -> bool:
    """Change a password; False where there is no such account."""
    return await connection.fetchval(SQL.set_password, email, password_hash) is not None


async def workspace_exists(connection: Any, workspace_id: str) -> bool:
    """Tell whether there is such a workspace."""
    return bool(await connection.fetchval(SQL.workspace_exists, workspace_id))


async def workspace_taken(connection: Any, workspace_id: str) -> bool:
    """Tell whether a workspace, perhaps an archived one, has this id."""
    return bool(await connection.fetchval(SQL.workspace_taken, workspace_id))


async def create_workspace(connection: Any, *, workspace_id: str, name: str, owner: str, username: str) -> None:
    """Add a workspace with its owner as its admin; raises ConflictError where the id is taken."""
    try:
        async with connection.transaction():
            await connection.execute(SQL.insert_workspace, workspace_id, name, owner)
            await connection.execute(SQL.insert_member, workspace_id, owner, username, True, False)
    except asyncpg.UniqueViolationError:
        raise ConflictError(f"a workspace {workspace_id} exists already") from None


async def add_member(connection: Any, *, workspace_id: str, email: str, member: Member) -> None:
    """Let somebody into a workspace; raises ConflictError where they, or their username, are in it already."""
    try:
        await connection.execute(
            SQL.insert_member, workspace_id, email, member.username, member.is_admin, member.operator
        )
    except asyncpg.UniqueViolationError:
        raise ConflictError(f"{email} or the username {member.username} is in {workspace_id} already") from None


async def workspaces_of(connection: Any, identity: Identity) -> list[Entry]:
    """Return the workspaces somebody may enter."""
    rows = await connection.fetch(SQL.workspaces_of, identity.email, identity.super_admin)
    return [
        Entry(
            workspace=Workspace(id=row["id"], name=row["name"], owner=row["owner"], archived=row["archived"]),
            member=None
            if row["username"] is None
            else Member(username=row["username"], is_admin=row["is_admin"], operator=row["operator"]),
        )
        for row in rows
        if identity.workspace_id in (None, row["id"])
    ]


async def member_since(connection: Any, workspace_id: str, email: str) -> datetime | None:
    """Return when somebody became a member of a workspace."""
    since: datetime | None = await connection.fetchval(SQL.member_since, workspace_id, email)
    return since


async def create_token(
    connection: Any,
    *,
    email: str,
    label: str | None = None,
    workspace_id: str | None = None,
    scopes: Sequence[str] | None = None,
    expiration: datetime | None = None,
    ttl_s: float | None = None,
) -> str:
    """Make a token, for ever or until a time or for some seconds, and return it: the only time that it is seen."""
    token = credentials.new_token()
    await connection.execute(
        SQL.insert_token,
        credentials.token_hash(token),
        token[: credentials.TOKEN_PREFIX_LENGTH],
        email,
        label,
        workspace_id,
        scopes,
        expiration,
        ttl_s,
    )
    return token


async def tokens(connection: Any, email: str, *, exclude_ephemeral: bool, limit: int, offset: int) -> list[TokenInfo]:
    """Return somebody's tokens that have not expired, newest first."""
    rows = await connection.fetch(SQL.list_tokens, email, exclude_ephemeral, limit, offset)
    return [TokenInfo(**{**row, "scopes": row["scopes"] and tuple(row["scopes"])}) for row in rows]


async def delete_token(connection: Any, email: str, prefix: str) -> list[bytes]:
    """Revoke somebody's token by its first characters; returns the hashes of what was revoked."""
    return [row["token_hash"] for row in await connection.fetch(SQL.delete_token, email, prefix)]


async def delete_token_by_hash(connection: Any, token_hash: bytes) -> None:
    """Revoke a token."""
    await connection.execute(SQL.delete_token_by_hash, token_hash)


def _memberships(rows: bytes) -> dict[str, Member]:
    return {
        row.workspace_id: Member(username=row.username, is_admin=row.is_admin, operator=row.operator)
        for row in _members.decode(rows)
    }
