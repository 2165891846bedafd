"""The first superadmin, and a token of theirs in the data directory: what makes `millhand run` work without a login."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from millhand.cli.data_dir import write_private
from millhand.core import credentials
from millhand.store import people
from millhand.store.pool import Database


class FirstAdmin(msgspec.Struct, frozen=True, kw_only=True):
    """Who may log in at first."""

    email: str
    password: str | None  # None: it was shown at an earlier start


async def ensure_admin(database_url: str, token_file: Path) -> FirstAdmin:
    """Make the first people where there are none, and a working token in the file where there is none."""
    async with Database(database_url, application_name="millhand up", max_size=1) as database:
        first = await people.bootstrap(database)
        if first is not None:
            write_private(token_file, first.token.encode())
            return FirstAdmin(email=first.email, password=first.password)
        if await people.account(database, people.ADMIN_EMAIL) is not None and not await _works(database, token_file):
            token = await people.create_token(database, email=people.ADMIN_EMAIL, label="data directory")
            write_private(token_file, token.encode())
        return FirstAdmin(email=people.ADMIN_EMAIL, password=None)


async def _works(database: Database, token_file: Path) -> bool:
    token = await asyncio.to_thread(_read, token_file)
    known = await people.by_token(database, credentials.token_hash(token))
    return known is not None and not known.expired and not known.disabled


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
