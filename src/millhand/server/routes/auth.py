"""Logging in and out."""

from __future__ import annotations

import asyncio

import msgspec
from litestar import MediaType, Response, Router, post
from litestar.datastructures import Cookie
from litestar.params import JSONBody

from millhand.core import credentials
from millhand.core.errors import NotAuthenticatedError
from millhand.server.request import COOKIE, PUBLIC, ApiRequest, refuse_other_sites, token_of
from millhand.store import people

SESSION_LABEL = "session"


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants to log in."""

    email: str
    password: str


@post("/auth/login", media_type=MediaType.TEXT, status_code=200, operation_id="login", opt=PUBLIC)
async def login(request: ApiRequest, data: JSONBody[Login]) -> Response[str]:
    """Trade an e-mail and a password for a token, which also comes as a cookie."""
    logins = request.services.logins
    address = request.client.host if request.client else ""
    if wait_s := logins.wait_s(data.email, address):
        return _too_many(wait_s)
    account = await people.account(request.database, data.email)
    password_hash = None if account is None else account.password_hash
    fits = await asyncio.to_thread(credentials.password_fits, password_hash, data.password)
    if wait_s := logins.wait_s(data.email, address):  # others who guessed at the same time were wrong
        return _too_many(wait_s)
    if account is None or not fits or account.disabled:
        logins.failed(data.email, address)
        raise NotAuthenticatedError("wrong e-mail or password")
    logins.succeeded(data.email, address)
    return await _session(request, account.email)


@post("/auth/logout", media_type=MediaType.TEXT, status_code=200, operation_id="logout", opt=PUBLIC)
async def logout(request: ApiRequest) -> Response[str]:
    """Revoke the token of the session that asks; other tokens stay."""
    token, from_cookie = token_of(request)
    if token and from_cookie:
        refuse_other_sites(request)
        key = credentials.token_hash(token)
        await people.delete_token_by_hash(request.database, key)
        request.services.auth.forget([key])
    answer = Response("logged out", media_type=MediaType.TEXT)
    answer.delete_cookie(COOKIE)
    return answer


def _too_many(wait_s: float) -> Response[str]:
    words = f"Not authorized: too many failed logins; try again in {wait_s:.0f} s"
    headers = {"retry-after": str(round(wait_s + 0.5))}
    return Response(words, status_code=429, media_type=MediaType.TEXT, headers=headers)


async def _session(request: ApiRequest, email: str) -> Response[str]:
    settings = request.services.settings
    token = await people.create_token(request.database, email=email, label=SESSION_LABEL, ttl_s=settings.session_s)
    cookie = Cookie(
        key=COOKIE,
        value=token,
        httponly=True,
        samesite="lax",
        secure=settings.secure_cookies,
        max_age=int(settings.session_s),
    )
    return Response(token, media_type=MediaType.TEXT, cookies=[cookie])


router = Router("/", route_handlers=[login, logout], tags=["auth"])
