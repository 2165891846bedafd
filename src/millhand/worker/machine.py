"""What this machine, or the container around us, offers and uses. Files of cgroup v1 and v2, else the machine itself."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil

_UNLIMITED = 1 << 60  # cgroup v1 writes a huge number where there is no limit
CPU = 100_000  # one CPU, in the unit of cgroup quotas


def vcpus(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the CPUs this host may use, in 1/100000 of one."""
    quota, period = _cpu_quota(root)
    if quota is None or period is None or quota <= 0 or period <= 0:
        return (os.cpu_count() or 1) * CPU
    return quota * CPU // period


def memory_limit(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes this host may use: the container's limit, or the machine's memory."""
    total = psutil.virtual_memory().total
    limit = _number(root / "memory.max") or _number(root / "memory/memory.limit_in_bytes")
    return min(limit, total) if limit and limit < _UNLIMITED else total


def memory_usage(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes in use, file cache that can be dropped left out: by the container, or by the machine."""
    for usage, stat, key in (
        (root / "memory.current", root / "memory.stat", "inactive_file"),
        (root / "memory/memory.usage_in_bytes", root / "memory/memory.stat", "total_inactive_file"),
    ):
        used = _number(usage)
        if used is not None:
            return max(used - _stat(stat, key), 0)
    return psutil.virtual_memory().used


def own_memory_usage() -> int:
    """Return the resident bytes of this process."""
    return psutil.Process().memory_info().rss


def ip_address() -> str:
    """Return the address by which others would reach this machine; sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address of RFC 5737: only the routing table is asked
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _cpu_quota(root: Path) -> tuple[int | None, int | None]:
    text = _text(root / "cpu.max")
    if text is not None:
        quota, _, period = text.partition(" ")
        return (int(quota), int(period)) if quota.isdigit() and period.strip().isdigit() else (None, None)
    return _number(root / "cpu/cpu.cfs_quota_us"), _number(root / "cpu/cpu.cfs_period_us")


def _stat(path: Path, key: str) -> int:
    for line in (_text(path) or "").splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdigit():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    text = (_text(path) or "").strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return None
