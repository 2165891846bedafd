"""What every handler can reach from its request: the services of this server, and who asks."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler

from millhand.core.clock import Clock
from millhand.core.errors import BadRequestError, NotAuthenticatedError, PermissionDeniedError
from millhand.core.objects import Objects
from millhand.core.people import Identity, Member
from millhand.server.auth import Authenticator, LoginLimiter
from millhand.server.hub import Hub
from millhand.server.pusher import Pusher
from millhand.server.runnables import Runnables
from millhand.server.settings import ServerSettings
from millhand.server.tags import ServedTags
from millhand.store.notify import Notifier
from millhand.store.pool import Database

COOKIE = "token"
PUBLIC = {"public": True}  # handler option: nobody has to be known


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a running server."""

    settings: ServerSettings
    database: Database
    objects: Objects | None  # where old parts of large logs are
    notifier: Notifier
    hub: Hub
    pusher: Pusher
    runnables: Runnables
    served_tags: ServedTags
    auth: Authenticator
    logins: LoginLimiter
    clock: Clock


class ApiRequest(Request[Identity, str, State]):
    """A request, with what handlers need."""

    __slots__ = ()

    async def json(self) -> Any:
        """Return the body, read as JSON; raises BadRequestError also for what is nested too deeply or not UTF-8."""
        try:
            return await super().json()
        except RecursionError:
            raise BadRequestError("the body is nested too deeply") from None
        except UnicodeDecodeError as error:
            raise BadRequestError(f"the body is not valid UTF-8 at byte {error.start}") from None

    @property
    def services(self) -> Services:
        """Return the parts of this server."""
        services: Services = self.app.state.services
        return services

    @property
    def database(self) -> Database:
        """Return the database."""
        return self.services.database

    @property
    def identity(self) -> Identity:
        """Return who asks."""
        identity: Identity = self.scope["identity"]  # type: ignore[typeddict-item]
        return identity

    @property
    def member(self) -> Member:
        """Return what the one who asks is in the workspace of the path."""
        member: Member = self.scope["member"]  # type: ignore[typeddict-item]
        return member

    def require_admin(self) -> None:
        """Raise PermissionDeniedError unless an admin of the workspace asks."""
        if not self.member.is_admin:
            raise PermissionDeniedError("only admins of the workspace may do this")

    def require_super_admin(self) -> None:
        """Raise PermissionDeniedError unless a superadmin asks."""
        if not self.identity.rules_instance:
            raise PermissionDeniedError("only superadmins may do this, with a token that counts in all workspaces")

    def require_developer(self) -> None:
        """Raise PermissionDeniedError where an operator asks: they run what is deployed."""
        if self.member.operator:
            raise PermissionDeniedError("operators run what is deployed; they can't deploy or preview code")

    def workspace_or_all(self, workspace: str, *, all_workspaces: bool) -> str | None:
        """Return the workspace to look at, or None for all of them, where a superadmin asks for that in `admins`."""
        if not all_workspaces:
            return workspace
        if workspace != "admins" or not self.identity.rules_instance:
            raise PermissionDeniedError("only superadmins see all workspaces at once, from the workspace admins")
        return None


def token_of(connection: ASGIConnection[Any, Any, Any, Any]) -> tuple[str | None, bool]:
    """Return the token of a request, and whether it came as a cookie."""
    header = connection.headers.get("authorization")
    if header is not None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip(), False
        raise NotAuthenticatedError("the Authorization header must be `Bearer <token>`")
    return connection.cookies.get(COOKIE), True


def refuse_other_sites(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """Raise PermissionDeniedError where a page of another site has the browser send the cookie along to change something.

    `SameSite` keeps other sites out, but takes every port and subdomain of a host for one site; these are not ours.
    """
    if connection.scope["method"] in ("GET", "HEAD", "OPTIONS"):  # type: ignore[typeddict-item]
        return
    headers = connection.headers
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site in ("same-origin", "none"):  # told by the browser itself, and right also behind a proxy that renames us
        return
    if site is not None or (origin is not None and origin.partition("://")[2] != headers.get("host")):
        raise PermissionDeniedError(
            "a page of another site can't use this session; send the token as `Authorization: Bearer <token>`"
        )


async def signed_in(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let a request pass that shows a valid token with the right scope, of a member of the workspace in its path."""
    if handler.opt.get("public"):
        return
    action: str = handler.opt["action"]
    services: Services = connection.app.state.services
    token, from_cookie = token_of(connection)
    if not token:
        raise NotAuthenticatedError("no token came with the request; send it as `Authorization: Bearer <token>`")
    identity = await services.auth.identify(token)
    if from_cookie:
        refuse_other_sites(connection)
    if action == "jobs:run":  # handlers check it again, with the path: scopes may name paths
        if not identity.may_run_any():
            raise PermissionDeniedError("the scopes of this token do not cover running anything")
        if from_cookie and connection.scope["method"] == "GET":  # type: ignore[typeddict-item]
            raise PermissionDeniedError("a link can't run a script; send the token as `Authorization: Bearer <token>`")
    elif not identity.may(action):
        raise PermissionDeniedError(f"the scopes of this token do not cover {action}")
    connection.scope["identity"] = identity  # type: ignore[typeddict-unknown-key]
    workspace = connection.path_params.get("workspace")
    if workspace is not None:
        connection.scope["member"] = await services.auth.enter(identity, workspace)  # type: ignore[typeddict-unknown-key]
