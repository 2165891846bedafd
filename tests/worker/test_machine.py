"""What the container's files say."""

from __future__ import annotations

from pathlib import Path

import psutil

from millhand.worker import machine


def _write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_cgroup_v2_limits_are_read(tmp_path: Path):
    """Quota, limit and usage of the unified hierarchy; dropped cache does not count as used."""
    _write(tmp_path, cpu_DOT_max="150000 100000\n", memory_DOT_max="1048576\n", memory_DOT_current="5000\n")
    _write(tmp_path, memory_DOT_stat="anon 1\ninactive_file 2000\n")
    assert machine.vcpus(tmp_path) == 150_000
    assert machine.memory_limit(tmp_path) == 1_048_576
    assert machine.memory_usage(tmp_path) == 3000


def test_cgroup_v1_limits_are_read(tmp_path: Path):
    """The same from the older hierarchy."""
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("50000")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("2097152")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("9000")
    (tmp_path / "memory/memory.stat").write_text("total_inactive_file 1000\n")
    assert (machine.vcpus(tmp_path), machine.memory_limit(tmp_path), machine.memory_usage(tmp_path)) == (
        50_000,
        2_097_152,
        8000,
    )


def test_without_limits_the_machine_counts(tmp_path: Path):
    """`max`, -1 and huge numbers mean no limit."""
    _write(tmp_path, cpu_DOT_max="max 100000\n", memory_DOT_max="max\n")
    assert machine.vcpus(tmp_path) == (psutil.cpu_count() or 1) * machine.CPU
    assert machine.memory_limit(tmp_path) == psutil.virtual_memory().total
    assert machine.own_memory_usage() > 0
    assert machine.ip_address().count(".") == 3
