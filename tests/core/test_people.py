"""Scopes and memberships: what a token lets somebody do."""

from __future__ import annotations

import pytest

from millhand.core.people import Identity, Member, allows


@pytest.mark.parametrize(
    ("scopes", "action", "covered"),
    [
        (["jobs:run"], "jobs:run", True),
        (["jobs"], "jobs:run", True),
        (["jobs:*"], "jobs:write", True),
        (["*"], "users:write", True),
        (["jobs:write"], "jobs:read", True),
        (["jobs:write"], "jobs:run", False),
        (["read_only"], "scripts:read", True),
        (["read_only"], "scripts:write", False),
        (["read_only"], "jobs:run", False),
        (["jobs:read"], "scripts:read", False),
        ([], "jobs:read", False),
        (["nonsense"], "jobs:read", False),
    ],
)
def test_scopes(scopes, action, covered):
    """A scope covers what it names and nothing else."""
    assert allows(scopes, action) is covered


@pytest.mark.parametrize(
    ("scope", "path", "covered"),
    [
        ("jobs:run:scripts:u/a/x", "u/a/x", True),
        ("jobs:run:scripts:u/a/x", "u/a/xy", False),
        ("jobs:run:scripts:u/a/*", "u/a/xy", True),
        ("jobs:run:scripts:u/a/x,f/b/*", "f/b/y", True),
        ("jobs:run:scripts:u/a/x", None, False),
        ("jobs:run", None, True),
    ],
)
def test_scopes_with_paths(scope, path, covered):
    """A scope may name the paths it lets run; code sent along needs the whole scope."""
    identity = Identity(email="e", username="u", scopes=(scope,))

    assert identity.may_run(path) is covered


def test_memberships():
    """Members enter their workspaces, superadmins all, a token of one workspace that one alone."""
    member = Member(username="ann")
    ann = Identity(email="e", username="ann", memberships={"main": member})
    root = Identity(email="e", username="root", super_admin=True)
    narrow = Identity(email="e", username="root", super_admin=True, workspace_id="main")

    assert (ann.in_workspace("main"), ann.in_workspace("lab")) == (member, None)
    assert root.in_workspace("lab") == Member(username="root", is_admin=True)
    assert (narrow.in_workspace("main") is not None, narrow.in_workspace("lab")) == (True, None)
