"""Who asks: tokens to identities, with a short memory; failed logins slow down."""

from __future__ import annotations

import time
from collections.abc import Iterable
from uuid import UUID

import msgspec

from millhand.core import credentials
from millhand.core.clock import Clock
from millhand.core.errors import NotAuthenticatedError, NotFoundError, PermissionDeniedError
from millhand.core.people import Identity, Member
from millhand.store import people
from millhand.store.pool import Database

JOB_TRUST_S = 1.0  # a job's token is asked about again after this long: it dies with its job
WORKSPACE_TRUST_S = 5.0
MAX_REMEMBERED = 10_000

MAX_FAILURES = 5  # logins that may fail in a row, per e-mail and address, before the next has to wait
FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 300.0


class _Remembered(msgspec.Struct, frozen=True):
    identity: Identity
    until: float  # monotonic


class Authenticator:
    """Turns tokens into identities. Remembers them for seconds: what is revoked here is forgotten here at once."""

    def __init__(self, database: Database, *, job_secret: str, trust_s: float) -> None:
        self._database = database
        self._job_secret = job_secret
        self._trust_s = trust_s
        self._known: dict[bytes, _Remembered] = {}
        self._workspaces: dict[str, float] = {}

    async def identify(self, token: str) -> Identity:
        """Return whose token this is; raises NotAuthenticatedError."""
        key = credentials.token_hash(token)
        remembered = self._known.get(key)
        if remembered is not None and time.monotonic() < remembered.until:
            return remembered.identity
        if token.startswith(credentials.JOB_TOKEN_PREFIX):
            return self._remember(key, await self._of_job(token), JOB_TRUST_S)
        known = await self._of_token(key)
        return self._remember(key, known.identity, self._trust_s if known.left_s is None else known.left_s)

    async def enter(self, identity: Identity, workspace_id: str) -> Member:
        """Return what somebody is in a workspace; raises PermissionDeniedError, or NotFoundError where there is none."""
        member = identity.in_workspace(workspace_id)
        if member is None:
            raise PermissionDeniedError(
                f"this token gives no access to a workspace {workspace_id!r}; is the name right?"
            )
        if workspace_id not in identity.memberships and not await self._exists(workspace_id):
            raise NotFoundError(f"there is no workspace {workspace_id!r}")
        return member

    def forget(self, token_hashes: Iterable[bytes]) -> None:
        """Stop trusting revoked tokens."""
        for key in token_hashes:
            self._known.pop(key, None)

    def forget_memberships(self, email: str) -> None:
        """Look somebody's rights up anew: they have changed."""
        self._known = {key: known for key, known in self._known.items() if known.identity.email != email}

    async def _of_token(self, key: bytes) -> people.Known:
        known = await people.by_token(self._database, key)
        if known is None:
            raise NotAuthenticatedError("this token is not known here; log in, or make a new one")
        if known.expired:
            raise NotAuthenticatedError("this token has expired; log in, or make a new one")
        if known.disabled:
            raise NotAuthenticatedError(f"the account {known.identity.email} is disabled")
        if known.untouched:
            await people.touch_token(self._database, key)
        return known

    async def _of_job(self, token: str) -> Identity:
        claims = credentials.read_job_token(self._job_secret, token)
        if claims is None:
            raise NotAuthenticatedError("this job token is malformed or not of this instance")
        identity = await people.by_job(
            self._database,
            job_id=claims.job_id,
            workspace_id=claims.workspace_id,
            email=claims.email,
            until=claims.exp,
        )
        if identity is None:
            raise NotAuthenticatedError(
                f"job {claims.job_id} does not run any more, or has run past its timeout; its token ended with it"
            )
        return identity

    def _remember(self, key: bytes, identity: Identity, longest_s: float) -> Identity:
        """Trust a token for a while, by the monotonic clock: what is set at the machine's other clock changes nothing."""
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[key] = _Remembered(identity, time.monotonic() + min(longest_s, self._trust_s))
        return identity

    async def _exists(self, workspace_id: str) -> bool:
        if time.monotonic() < self._workspaces.get(workspace_id, 0):
            return True
        if not await people.workspace_exists(self._database, workspace_id):
            return False
        if len(self._workspaces) >= MAX_REMEMBERED:
            self._workspaces.clear()
        self._workspaces[workspace_id] = time.monotonic() + WORKSPACE_TRUST_S
        return True


class LoginLimiter:
    """Makes guessing passwords slow: after MAX_FAILURES in a row, waits that double, per e-mail and address."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[tuple[str, str], tuple[int, float]] = {}  # count, monotonic time until which to wait

    def wait_s(self, email: str, address: str) -> float:
        """Return how long this login has to wait; 0 where it may go ahead."""
        _, until = self._failures.get((email.lower(), address), (0, 0.0))
        return max(until - self._clock.monotonic(), 0.0)

    def failed(self, email: str, address: str) -> None:
        """Count a failed login."""
        key = (email.lower(), address)
        if len(self._failures) >= MAX_REMEMBERED:
            now = self._clock.monotonic()
            self._failures = {key: entry for key, entry in self._failures.items() if entry[1] > now}
        count = self._failures.get(key, (0, 0.0))[0] + 1
        wait_s = min(FIRST_WAIT_S * 2 ** (count - MAX_FAILURES), LONGEST_WAIT_S) if count >= MAX_FAILURES else 0.0
        self._failures[key] = (count, self._clock.monotonic() + wait_s)

    def succeeded(self, email: str, address: str) -> None:
        """Forget the failures of somebody who got it right."""
        self._failures.pop((email.lower(), address), None)


def refuse_jobs(job_id: UUID | None, what: str) -> None:
    """Raise PermissionDeniedError where a job's token is used for what outlives the job."""
    if job_id is not None:
        raise PermissionDeniedError(f"the token of a job can't {what}; use a token of a person")
