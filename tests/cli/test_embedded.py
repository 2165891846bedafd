"""The embedded PostgreSQL: made, started, picked up again whatever happened, closed to others."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import asyncpg
import psutil
import pytest

from millhand.cli.embedded import EmbeddedPostgres
from millhand.cli.system_user import let_pass, service_user

STARTER = """
import asyncio, sys
from pathlib import Path
from millhand.cli.embedded import EmbeddedPostgres

async def main():
    postgres = EmbeddedPostgres(Path(sys.argv[1]))
    await postgres.start()
    print(postgres.pid, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Path:
    """Return a data directory with an instance in it, made once."""
    directory = tmp_path_factory.mktemp("embedded")
    (directory / "log").mkdir()

    async def make():
        postgres = EmbeddedPostgres(directory)
        await postgres.start()
        await postgres.stop()

    asyncio.run(make())
    return directory


async def rows(url: str, statement: str) -> list[tuple]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


async def until(condition) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.system
async def test_it_is_durable_and_ours(cluster):
    """Durability is PostgreSQL's default; we are not its superuser; text is UTF-8 and sorts by code point."""
    postgres = EmbeddedPostgres(cluster)
    await postgres.start()
    names = ("fsync", "full_page_writes", "synchronous_commit", "is_superuser", "server_encoding")
    asked = ", ".join(f"current_setting('{name}')" for name in names)
    try:
        assert await rows(postgres.url, f"select {asked}, 'a' < 'B'") == [("on", "on", "on", "off", "UTF8", False)]
        assert await rows(postgres.datatable_url, "select current_user::text") == [("datatable",)]
    finally:
        await postgres.stop()
    assert postgres.pid is None


@pytest.mark.system
async def test_only_the_datatable_is_reached_over_tcp(cluster):
    """Over TCP neither our database nor our role exist, and the datatable wants its password."""
    postgres = EmbeddedPostgres(cluster)
    await postgres.start()
    try:
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await asyncpg.connect(postgres.datatable_url.replace("/datatable", "/millhand"))
        address = postgres.datatable_url.rpartition("@")[2]
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(f"postgresql://datatable:wrong@{address}")
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await asyncpg.connect(f"postgresql://postgres:x@{address}")
    finally:
        await postgres.stop()


@pytest.mark.system
async def test_it_is_started_again_when_it_dies(cluster):
    """A killed server comes back on the same address, with what was committed."""
    postgres = EmbeddedPostgres(cluster)
    await postgres.start()
    watch = asyncio.create_task(postgres.run())
    try:
        await rows(postgres.url, "create table kept as select 1 as n")
        url, pid = postgres.url, postgres.pid
        os.kill(pid, signal.SIGKILL)
        await until(lambda: postgres.pid not in (None, pid))

        async def answers() -> bool:
            try:
                return await rows(url, "select n from kept") == [(1,)]
            except (OSError, asyncpg.PostgresError):
                return False

        async with asyncio.timeout(30):
            while not await answers():
                await asyncio.sleep(0.02)
        await rows(url, "drop table kept")
    finally:
        watch.cancel()
        await postgres.stop()


@pytest.mark.system
@pytest.mark.parametrize("with_server", [True, False], ids=["all_killed", "parent_killed"])
async def test_it_is_picked_up_after_kill_9(cluster, with_server):
    """After kill -9 of its parent, or of both, the next start works; a server never outlives its parent for long."""
    parent = subprocess.Popen([sys.executable, "-c", STARTER, cluster], stdout=subprocess.PIPE, text=True)
    pid = int(await asyncio.to_thread(parent.stdout.readline))
    server = psutil.Process(pid)
    parent.kill()
    if with_server:
        server.kill()
    parent.wait()
    parent.stdout.close()
    again = EmbeddedPostgres(cluster)
    await again.start()
    try:
        assert again.pid != pid
        assert await rows(again.url, "select 1") == [(1,)]
        assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
    finally:
        await again.stop()


@pytest.mark.system
async def test_a_long_path_gets_a_short_socket(tmp_path, cluster):
    """A data directory deeper than a socket's path may be long works too."""
    deep = tmp_path.joinpath(*["d" * 60] * 3)
    shutil.copytree(cluster, deep, ignore=shutil.ignore_patterns("run"))
    deep.joinpath("postgres").chmod(0o700)
    postgres = EmbeddedPostgres(deep)
    await postgres.start()
    try:
        assert await rows(postgres.url, "select 1") == [(1,)]
    finally:
        await postgres.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user for PostgreSQL")
def test_a_closed_home_is_opened_for_nobody_else(tmp_path):
    """PostgreSQL's user gets the right to pass a closed directory; no other user gets anything."""
    closed = tmp_path / "home"
    inner = closed / "data"
    inner.mkdir(parents=True)
    closed.chmod(0o700)
    let_pass(inner, service_user())
    closed.chmod(0o700)  # which takes away what the list gives
    let_pass(inner, service_user())
    let_pass(inner, service_user())

    def may_enter(**identity) -> bool:
        return subprocess.run(["/bin/ls", inner], capture_output=True, check=False, **identity).returncode == 0

    user = service_user()
    assert may_enter(user=user.pw_uid, group=user.pw_gid, extra_groups=[])
    assert not may_enter(user=65534, group=65534, extra_groups=[])
    assert not stat.S_IMODE(closed.stat().st_mode) & 0o007
