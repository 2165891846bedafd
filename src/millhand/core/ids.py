"""Identifiers: time-ordered job ids, script hashes, worker names."""

from __future__ import annotations

import os
import secrets
import socket
import time
from uuid import UUID

_HASH_DIGITS = 16
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


def new_id(now_ms: int | None = None) -> UUID:
    """Return a UUIDv7 (RFC 9562 §5.7): 48 bits of Unix milliseconds, 12 bits of their fraction, 62 bits of randomness.

    So ids sort by creation time to a quarter of a microsecond (method 3 of §6.2): jobs pushed in a batch keep their order.
    """
    ns = time.time_ns() if now_ms is None else now_ms * 1_000_000
    ms, fraction = divmod(ns, 1_000_000)
    clock = (ms & (2**48 - 1)) << 80 | 0x7 << 76 | (fraction * 4096 // 1_000_000) << 64
    return UUID(int=clock | 0b10 << 62 | int.from_bytes(os.urandom(8), "big") >> 2)


def id_floor(ms: int) -> UUID:
    """Return the smallest UUIDv7 of a millisecond: a bound for ranges of ids by time of creation."""
    return UUID(int=(ms & (2**48 - 1)) << 80)


def id_ms(job_id: UUID) -> int:
    """Return the Unix milliseconds at which a UUIDv7 was made."""
    return job_id.int >> 80


def hash_to_hex(value: int) -> str:
    """Write a script hash (a signed 64-bit integer in the database) as clients see it: 16 hex digits."""
    return f"{value & 0xFFFFFFFFFFFFFFFF:016x}"


def hash_from_hex(text: str) -> int:
    """Read a script hash from its 16 hex digits; raises ValueError where the text is not one."""
    value = int(text, 16)
    if len(text) > _HASH_DIGITS or value < 0:
        raise ValueError(f"not a script hash: {text!r}")
    return value - 2**64 if value >= 2**63 else value


def worker_name(group: str, host: str | None = None) -> str:
    """Return a new worker name, `wk-<group>-<host>-<random>`: never used twice, so no lease is ever confused."""
    instance = (host or socket.gethostname()).rsplit("-", 1)[-1].split(".")[0].lower() or "host"
    suffix = "".join(secrets.choice(_ALPHABET) for _ in range(5))
    return f"wk-{group}-{instance}-{suffix}"
