"""Leadership among servers: a lock that lasts as long as the connection that holds it."""

from __future__ import annotations

from typing import Any

from millhand.store.sql_files import load

SQL = load("leader")


async def try_to_lead(connection: Any) -> bool:
    """Take the leader's lock for the life of a connection of one's own; False where another server has it."""
    return bool(await connection.fetchval(SQL.try_to_lead))
