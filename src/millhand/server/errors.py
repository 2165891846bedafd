"""Errors on their way out: plain text with a word of their kind in front, never a stack."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import structlog
from litestar import MediaType, Request, Response
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)

from millhand.core.errors import (
    BadRequestError,
    ConflictError,
    MillhandError,
    NotAuthenticatedError,
    NotFoundError,
    ObjectMissingError,
    ObjectStoreError,
    PermissionDeniedError,
    TooLargeError,
)
from millhand.store.errors import DataError, DiskFullError
from millhand.store.pool import CONNECTION_ERRORS

log = structlog.get_logger(__name__)

Handler = Callable[[Request[Any, Any, Any], Any], Response[str]]

_STATUSES: tuple[tuple[type[MillhandError], int, str], ...] = (
    (BadRequestError, 400, "Bad request"),
    (NotAuthenticatedError, 401, "Not authorized"),
    (PermissionDeniedError, 403, "Permission denied"),
    (NotFoundError, 404, "Not found"),
    (ConflictError, 409, "Conflict"),
    (TooLargeError, 413, "Too large"),
    (ObjectMissingError, 502, "Bad gateway"),
    (ObjectStoreError, 503, "Unavailable"),
)


def text(status: int, words: str) -> Response[str]:
    """Return a plain-text answer."""
    return Response(words, status_code=status, media_type=MediaType.TEXT)


def on_purpose(_: Request[Any, Any, Any], error: MillhandError) -> Response[str]:
    """Answer an error that says what to do."""
    for kind, status, word in _STATUSES:
        if isinstance(error, kind):
            return text(status, f"{word}: {error}")
    return text(500, f"Error: {error}")


def of_framework(request: Request[Any, Any, Any], error: HTTPException) -> Response[str]:
    """Answer what the framework refused: unknown routes, wrong methods, values that can't be read, bodies too large."""
    if isinstance(error, NotFoundException):
        return text(404, f"Not found: there is no {request.method} {request.url.path} here")
    if isinstance(error, MethodNotAllowedException):
        return text(405, f"Bad request: {request.url.path} does not take {request.method}")
    if error.status_code >= 500:  # noqa: PLR2004 - HTTP's
        return unexpected(request, error)
    if error.status_code == 413:  # noqa: PLR2004 - HTTP's
        return text(413, "Too large: the body is over the limit of this request")
    words = _invalid(error) if isinstance(error, ValidationException) else str(error.detail)
    return text(error.status_code, f"Bad request: {words}")


def unreachable(_: Request[Any, Any, Any], error: BaseException) -> Response[str]:
    """Answer while the database is away, or takes nothing."""
    log.warning("http.database_unavailable", error=str(error), kind=type(error).__name__)
    words = "the database can't be reached right now; try again in a moment"
    if isinstance(error, DiskFullError):
        words = "the disk of the database is full; once there is room on it again, all goes on by itself"
    answer = text(503, f"Unavailable: {words}")
    answer.headers["retry-after"] = "1"
    return answer


def unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[str]:
    """Answer a defect of ours: an id to find it in the log by."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, CONNECTION_ERRORS):
            return unreachable(request, cause)
        if isinstance(cause, MillhandError):
            return on_purpose(request, cause)
        cause = cause.__cause__
    number = secrets.token_hex(6)
    log.error("http.failed", error_id=number, method=request.method, path=request.url.path, exc_info=error)
    return text(500, f"Internal error, id {number}: the server's log says more")


def unstorable(_: Request[Any, Any, Any], error: Exception) -> Response[str]:
    """Answer a value that no database holds, such as a NUL byte in a text."""
    return text(400, f"Bad request: the database can't store a value of this request: {error}")


def handlers() -> dict[int | type[Exception], Handler]:
    """Return the answer to each kind of error."""
    return {
        MillhandError: on_purpose,
        HTTPException: of_framework,
        DataError: unstorable,
        Exception: unexpected,
    }


def _invalid(error: ValidationException) -> str:
    extra = error.extra if isinstance(error.extra, list) else []
    words = [_problem(each) for each in extra if isinstance(each, dict)]
    return "; ".join(words) if words else str(error.detail)


def _problem(problem: dict[str, Any]) -> str:
    key, message = problem.get("key"), problem.get("message", "can't be read")
    return f"{key}: {message}" if key else str(message)
