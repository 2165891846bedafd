"""The cache of directories that are built once, by several processes at a time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from millhand.runtimes.dependencies.cache import BuildCache

BUILDER = """
import asyncio, os, sys
from pathlib import Path
from millhand.runtimes.dependencies.cache import BuildCache

async def build(path):
    with open(sys.argv[2], "a") as builds:
        builds.write("built\\n")
    (path / "half").write_text("x")
    if "die" in sys.argv:
        print("building", flush=True)
        await asyncio.sleep(600)
    await asyncio.sleep(0.1)
    (path / "whole").write_text("x")

path = asyncio.run(BuildCache(Path(sys.argv[1])).get("key", build))
assert sorted(item.name for item in path.iterdir()) == ["half", "whole"]
"""


async def write(path: Path) -> None:
    (path / "file").write_bytes(os.urandom(50_000))


async def test_built_once(tmp_path):
    """The second request for a key gets what the first one built, readable for everybody."""
    cache = BuildCache(tmp_path / "cache")
    first = await cache.get("key", write)
    content = (first / "file").read_bytes()
    assert await cache.get("key", write) == first == cache.find("key")
    assert (first / "file").read_bytes() == content
    assert first.stat().st_mode & 0o555 == 0o555


async def test_failed_build_leaves_nothing(tmp_path):
    """Nothing of a build that failed can be seen, and the next one starts anew."""
    cache = BuildCache(tmp_path)

    async def fail(path: Path) -> None:
        await write(path)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        await cache.get("key", fail)
    assert [item for item in tmp_path.rglob("*") if item.name != ".state"] == []
    assert (await cache.get("key", write) / "file").is_file()


async def test_canceled_build_leaves_nothing(tmp_path):
    """The one who waits takes over when the builder is canceled."""
    cache = BuildCache(tmp_path)
    building = asyncio.Event()

    async def hang(path: Path) -> None:
        await write(path)
        building.set()
        await asyncio.Event().wait()

    first = asyncio.create_task(cache.get("key", hang))
    await building.wait()
    second = asyncio.create_task(cache.get("key", write))
    first.cancel()
    assert (await second).is_dir()
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".build")] == []


def test_concurrent_builders(tmp_path):
    """Of several processes that want the same directory at once, one builds it and all get it whole."""
    argv = [sys.executable, "-c", BUILDER, str(tmp_path / "cache"), str(tmp_path / "builds")]
    builders = [subprocess.Popen(argv) for _ in range(4)]
    assert [builder.wait(60) for builder in builders] == [0, 0, 0, 0]
    assert (tmp_path / "builds").read_text() == "built\n"


def test_killed_builder(tmp_path):
    """A builder that is killed half-way blocks nobody, and the next one clears its rubbish away."""
    argv = [sys.executable, "-c", BUILDER, str(tmp_path / "cache"), str(tmp_path / "builds")]
    with subprocess.Popen([*argv, "die"], stdout=subprocess.PIPE) as dying:
        assert dying.stdout.readline() == b"building\n"
        dying.send_signal(signal.SIGKILL)
    assert subprocess.run(argv, timeout=60, check=False).returncode == 0
    assert sorted(item.name for item in (tmp_path / "cache").iterdir()) == [".state", "key"]


async def test_least_recently_used_go(tmp_path):
    """When the cache is too big, what was used longest ago is evicted, and no more than needed."""
    cache = BuildCache(tmp_path, max_bytes=120_000, grace_s=0)
    for age_s, key in [(300, "first"), (200, "second"), (100, "third")]:
        await BuildCache(tmp_path).get(key, write)
        used_at = (tmp_path / ".state" / key).stat().st_mtime - age_s
        os.utime(tmp_path / ".state" / key, (used_at, used_at))
    assert cache.find("first")  # is now the one used last
    assert cache.sweep() == ["second"]
    assert sorted(item.name for item in tmp_path.iterdir()) == [".state", "first", "third"]
    assert cache.sweep() == []


async def test_held_directories_stay(tmp_path):
    """What somebody holds, in whatever process, is never evicted; once released it is."""
    cache = BuildCache(tmp_path, max_bytes=0, grace_s=0)
    other_process = BuildCache(tmp_path, max_bytes=0, grace_s=0)
    cache_without_bound = BuildCache(tmp_path)
    path = await cache_without_bound.get("key", write)
    hold = other_process.hold(path)
    assert cache.sweep() == []
    assert await cache.get("key", write) == path  # holders don't keep others from using it
    hold.release()
    hold.release()
    assert cache.sweep() == ["key"]
    with pytest.raises(FileNotFoundError):
        cache.hold(path)


async def test_just_used_directories_stay(tmp_path):
    """What was handed out a moment ago is not evicted before it can be held."""
    cache = BuildCache(tmp_path, max_bytes=0)
    path = await cache.get("key", write)
    assert cache.sweep() == []
    assert path.is_dir()


@pytest.mark.parametrize("key", ["", "../x", ".state", "a/b", "x" * 200])
async def test_keys_are_names(tmp_path, key):
    """A key can't lead out of the cache."""
    with pytest.raises(ValueError, match="not a cache key"):
        await BuildCache(tmp_path).get(key, write)
