"""Describe the machine and the programs a figure was measured with."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from bench.postgres import BINARIES

ROOT = Path(__file__).resolve().parents[1]


def describe() -> dict[str, str]:
    """Return name and value of what matters to the figures."""
    return {
        "CPU": f"{_cpu_model()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}, {_virtualisation()}",
        "file system": f"{_file_system()}, fdatasync {_fdatasync_ms():.2f} ms",
        "Python": platform.python_version(),
        "PostgreSQL": _version([str(BINARIES / "postgres"), "--version"]),
    }


def commit() -> str:
    """Return the commit of the tree, with a plus where it has changes."""
    try:
        head = _output(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
        changed = _output(["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"])
    except (OSError, subprocess.CalledProcessError):
        return "no checkout"
    return head + ("+" if changed else "")


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _virtualisation() -> str:
    try:
        return _output(["systemd-detect-virt"])
    except (OSError, subprocess.CalledProcessError):
        return "virtual machine" if " hypervisor" in Path("/proc/cpuinfo").read_text() else "bare metal"


def _file_system() -> str:
    here = str(Path(tempfile.gettempdir()).resolve())
    mounts = [part for part in psutil.disk_partitions(all=True) if here.startswith(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "unknown"


def _fdatasync_ms(n: int = 100) -> float:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x" * 8192)
        file.flush()
        times = []
        for _ in range(n):
            file.seek(0)
            file.write(b"y" * 8192)
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return sorted(times)[n // 2] * 1000


def _version(command: list[str]) -> str:
    return _output(command).removeprefix("postgres (PostgreSQL) ")


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
