"""People: who asks, what they are in which workspace, and what their token lets them do."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec

READ_ONLY = "read_only"
_RUN_SCRIPTS = "jobs:run:scripts:"


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody is in one workspace."""

    username: str
    is_admin: bool = False
    operator: bool = False  # may run what is deployed, and deploy nothing


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a request comes from, as its token says."""

    email: str
    username: str
    super_admin: bool = False
    memberships: dict[str, Member] = {}
    scopes: tuple[str, ...] | None = None  # None: all that the person may do
    workspace_id: str | None = None  # the token counts in this workspace only
    job_id: UUID | None = None  # the token of a running job
    token_prefix: str = ""

    @property
    def rules_instance(self) -> bool:
        """Tell whether this may act on the instance as a whole: a superadmin, by a token that counts everywhere."""
        return self.super_admin and self.workspace_id is None

    def in_workspace(self, workspace_id: str) -> Member | None:
        """Return what this person is in a workspace, or None. Superadmins are admins of every workspace."""
        if self.workspace_id not in (None, workspace_id):
            return None
        member = self.memberships.get(workspace_id)
        if member is None and self.super_admin:
            return Member(username=self.username, is_admin=True)
        return member

    def may(self, action: str) -> bool:
        """Tell whether the token's scopes cover an action such as `jobs:run` or `scripts:write`."""
        return self.scopes is None or allows(self.scopes, action)

    def may_run_any(self) -> bool:
        """Tell whether the token's scopes cover running anything at all."""
        return self.may("jobs:run") or any(scope.startswith(_RUN_SCRIPTS) for scope in self.scopes or ())

    def may_run(self, path: str | None) -> bool:
        """Tell whether the token's scopes cover running a script at a path (None: code sent along)."""
        if self.may("jobs:run"):
            return True
        patterns = [scope.removeprefix(_RUN_SCRIPTS) for scope in self.scopes or () if scope.startswith(_RUN_SCRIPTS)]
        return path is not None and any(_path_fits(path, part) for text in patterns for part in text.split(","))


def allows(scopes: Iterable[str], action: str) -> bool:
    """Tell whether scopes cover an action: `jobs` and `jobs:run` cover `jobs:run`; `jobs:write` covers `jobs:read`, too."""
    domain, _, verb = action.partition(":")
    granting = {"*", domain, f"{domain}:*", action}
    if verb == "read":
        granting |= {READ_ONLY, f"{domain}:write"}
    return not granting.isdisjoint(scopes)


def _path_fits(path: str, pattern: str) -> bool:
    return path == pattern or (pattern.endswith("*") and path.startswith(pattern[:-1]))


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A person on this instance."""

    email: str
    username: str
    password_hash: str | None
    super_admin: bool
    name: str | None
    company: str | None
    disabled: bool
    created_at: datetime


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace: its scripts, jobs and people are apart from those of all others."""

    id: str
    name: str
    owner: str
    archived: bool = False


class TokenInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What lists show of a token. The token itself is shown once, when it is made."""

    token_prefix: str
    email: str
    label: str | None
    workspace_id: str | None
    scopes: tuple[str, ...] | None
    expiration: datetime | None
    created_at: datetime
    last_used_at: datetime
