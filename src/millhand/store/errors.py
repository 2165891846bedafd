"""What the driver raises, named for those who may not know the driver."""

from __future__ import annotations

import asyncpg

DiskFullError = asyncpg.DiskFullError  # PostgreSQL has no room for what it was given
DataError = asyncpg.DataError  # a value that no column can hold: a NUL byte in a text, a number out of range
