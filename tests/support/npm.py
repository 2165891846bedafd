"""Packages of npm, for tests of clients that are written in JavaScript: fetched once, kept outside of the repository."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.runs import cache_dir

LEAST_NODE = 20


def package(name: str, version: str) -> Path:
    """Return a directory with a package in its node_modules; skips where there is no npm, or no registry."""
    if shutil.which("npm") is None or _node() < LEAST_NODE:
        pytest.skip(f"{name} needs npm and Node {LEAST_NODE} or later, which are not here")
    place = cache_dir() / "npm" / f"{name}-{version}"
    if not place.exists():
        fresh = place.with_name(f".{place.name}.{id(place)}")
        fresh.mkdir(parents=True)
        quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
        command = ["npm", "install", f"--prefix={fresh}", *quiet, f"{name}@{version}"]
        made = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
        if made.returncode:
            shutil.rmtree(fresh)
            pytest.skip(f"npm can't fetch {name}: {made.stderr[-300:]}")
        with contextlib.suppress(OSError):  # another process was quicker
            fresh.rename(place)
    return place


def _node() -> int:
    """Return the major version of Node, 0 where there is none."""
    if shutil.which("node") is None:
        return 0
    said = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout
    return int(said.strip().removeprefix("v").split(".")[0])
