"""The errors Millhand raises on purpose. Each message says what to do next; the HTTP edge turns them into statuses."""

from __future__ import annotations


class MillhandError(Exception):
    """Base of every error raised on purpose."""


class BadRequestError(MillhandError):
    """The caller sent something that cannot be accepted (HTTP 400)."""


class NotAuthenticatedError(MillhandError):
    """No valid token came with the request (HTTP 401)."""


class PermissionDeniedError(MillhandError):
    """The caller is known and may not do this (HTTP 403)."""


class NotFoundError(MillhandError):
    """The thing asked for does not exist, or not for this caller (HTTP 404)."""


class ConflictError(MillhandError):
    """The thing exists already, or is in a state that forbids this (HTTP 409)."""


class TooLargeError(MillhandError):
    """A body, argument or result is over the limit (HTTP 413)."""


class SchemaVersionError(MillhandError):
    """The database schema is older or newer than this program."""


class SourceUnavailableError(MillhandError):
    """The queue can't be reached for now; the caller keeps what it has and tries again."""


class LockFailedError(MillhandError):
    """Dependencies of a script can't be resolved; the message is for the job's log."""


class RuntimeUnavailableError(MillhandError):
    """A language's runtime is not installed on this worker; the message says how to install it."""


class ObjectStoreError(MillhandError):
    """Object storage can't be reached, refuses, or is not set; what is in it can't be had now (HTTP 503)."""


class ObjectMissingError(ObjectStoreError):
    """Object storage answers and does not have, or has otherwise, what the database says is there (HTTP 502)."""
