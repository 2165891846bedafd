"""Passwords and tokens."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest

from millhand.core.credentials import (
    JobClaims,
    hash_password,
    new_token,
    password_fits,
    read_job_token,
    sign_job_token,
    token_hash,
)

SECRET = "a secret of more than thirty-two characters"


def test_passwords_fit_or_do_not():
    """Only the right password fits its hash; nobody's password fits nothing, and garbage is no hash."""
    hashed = hash_password("correct horse")

    assert password_fits(hashed, "correct horse")
    assert not password_fits(hashed, "wrong")
    assert not password_fits(None, "wrong")
    assert not password_fits("garbage", "wrong")


def test_tokens_are_random_and_hashed():
    """Tokens differ, are long, and any text can be looked up."""
    assert len({new_token() for _ in range(100)}) == 100
    assert len(new_token()) >= 32
    assert len(token_hash("\udc80 odd \0")) == 32


@pytest.fixture
def claims() -> JobClaims:
    """Return what the token of a job says."""
    return JobClaims(
        email="e@x",
        username="ann",
        workspace_id="main",
        job_id=uuid4(),
        permissioned_as="u/ann",
        exp=int(time.time()) + 60,
    )


def test_job_tokens_come_back(claims):
    """A signed token says what was put into it."""
    token = sign_job_token(SECRET, claims)

    assert token.startswith("jwt_")
    assert read_job_token(SECRET, token) == claims


@pytest.mark.parametrize("damage", ["secret", "text", "unsigned"])
def test_other_job_tokens_are_refused(claims, damage):
    """A token of another secret, malformed or unsigned is none."""
    none_header = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"
    tokens = {
        "secret": sign_job_token(SECRET + "x", claims),
        "text": "jwt_a.b.c",
        "unsigned": f"jwt_{none_header}.{sign_job_token(SECRET, claims).split('.')[1]}.",
    }

    assert read_job_token(SECRET, tokens[damage]) is None
