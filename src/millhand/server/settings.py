"""Settings of the server, read once from the environment."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from millhand.core.errors import BadRequestError

_MB = 1024 * 1024


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may change. Names of the environment variables follow the fields' comments."""

    base_url: str = "http://127.0.0.1:8000"  # BASE_URL: where people and clients reach this server
    timeout_wait_result_s: float = 600.0  # TIMEOUT_WAIT_RESULT: how long run_wait_result waits
    sse_stream_s: float = 60.0  # TIMEOUT_SSE_STREAM: how long one stream of updates lasts
    body_limit_bytes: int = 2 * _MB  # REQUEST_SIZE_LIMIT_MB: of all requests but those that carry arguments
    queue_limit: int | None = None  # QUEUE_LIMIT_WAIT_RESULT: refuse run_wait_result when more jobs are queued
    secure_cookies: bool = False  # SECURE_COOKIES: send the cookie over https only
    session_s: float = 30 * 86_400.0  # SESSION_DURATION_SECS: how long a login lasts
    token_cache_s: float = 5.0  # how long a token is trusted without asking the database again
    pool_size: int = 12  # DATABASE_CONNECTIONS
    object_store: str | None = None  # MILLHAND_OBJECT_STORE: the URL of where large logs go

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ServerSettings:
        """Read the settings; raises BadRequestError naming the variable that can't be read."""
        default = cls()
        return cls(
            base_url=environment.get("BASE_URL") or default.base_url,
            timeout_wait_result_s=_number(environment, "TIMEOUT_WAIT_RESULT", default.timeout_wait_result_s),
            sse_stream_s=_number(environment, "TIMEOUT_SSE_STREAM", default.sse_stream_s),
            body_limit_bytes=int(_number(environment, "REQUEST_SIZE_LIMIT_MB", default.body_limit_bytes / _MB) * _MB),
            queue_limit=_limit(environment, "QUEUE_LIMIT_WAIT_RESULT"),
            secure_cookies=environment.get("SECURE_COOKIES", "").lower() in ("1", "true", "yes"),
            session_s=_number(environment, "SESSION_DURATION_SECS", default.session_s),
            object_store=environment.get("MILLHAND_OBJECT_STORE", "").strip() or None,
            pool_size=int(_number(environment, "DATABASE_CONNECTIONS", default.pool_size)),
        )


def _limit(environment: Mapping[str, str], name: str) -> int | None:
    return int(_number(environment, name, 0)) if environment.get(name) else None


def _number(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not value > 0:
        raise BadRequestError(f"{name} is {text!r}; it must be a number greater than 0")
    return value
