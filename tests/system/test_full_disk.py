"""The disk under `millhand up` is full: nothing that was accepted is lost, and all goes on when there is room again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

import asyncpg
import httpx
import pytest

from millhand.store.pool import CONNECTION_ERRORS, Database
from tests.support.runs import cache_dir
from tests.support.stack import Stack
from tests.system.load import Load, check, fill
from tests.system.stage import PATIENCE_S, Stage, deploy, ended, new_job, push, until
from tests.system.witness import SCRIPT, Witness

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """Return an empty data directory on a disk of its own, of 250 MB."""
    with disk(tmp_path / "data", "250m") as place:
        yield place


@pytest.fixture
def small_cache(tmp_path: Path) -> Iterator[Path]:
    """Return a cache of environments on a disk of its own, of 60 MB."""
    with disk(tmp_path / "cache", "60m") as place:
        yield place


@contextlib.contextmanager
def disk(place: Path, size: str) -> Iterator[Path]:
    """Mount a small disk; skips where that is not allowed."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("can't mount a small disk here; that needs root, and the right to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


async def test_under_up(data_dir: Path, witness: Witness):
    """PostgreSQL refuses, then dies and can't start: `up` says why, and starts it when there is room."""
    stack = await asyncio.to_thread(Stack, data_dir, MILLHAND_CACHE_DIR=str(cache_dir()))
    filler, url = data_dir / "filler", url_of(data_dir, "millhand")
    try:
        async with Database(url, application_name="test", max_size=2) as database, client_of(stack) as http:
            load, long = Load(http, witness), new_job(SCRIPT, witness.args(wait=True))
            await deploy(http, "u/admin/witnessed", SCRIPT)
            await deploy(http, "u/admin/heavy", SCRIPT.replace("port: int", "port: int, ballast: str = ''"))
            await push(database, long)
            run = await witness.run(long.id)
            async with load.running():
                await load.more(10)
                fill(filler)
                await overload(load, http, witness)
                await crash(url_of(data_dir, "postgres"))
                run.go()
                await run.gone()
                await until(lambda: "postgres.start_failed" in stack.log.read_text())
                filler.unlink()
                await load.more(10)
            row = await ended(database, long.id)
            assert (row["status"], row["attempt"], row["result"]) == ("success", 1, b"%d" % run.number)
            await check(database, witness, load.accepted)
        assert {(status, text.split(":")[0]) for status, text in load.refusals} == {(503, "Unavailable")}
        said = stack.log.read_text()
        assert (f"the disk of {data_dir / 'postgres'} is full" in said, "Traceback" in said) == (True, False)
        assert await asyncio.to_thread(stack.end) == 0
    finally:
        if stack.process.poll() is None:
            await asyncio.to_thread(stack.kill_all)


async def overload(load: Load, http: httpx.AsyncClient, witness: Witness) -> None:
    """Push jobs with a megabyte each until one is refused, with a clear word."""
    while True:
        args = {**json.loads(witness.args()), "ballast": os.urandom(500_000).hex()}
        answer = await http.post("jobs/run/p/u/admin/heavy", json=args)
        if answer.status_code != 201:
            break
        load.accepted.append(UUID(answer.text))
    assert (answer.status_code, "the disk of the database is full" in answer.text) == (503, True), answer.text


def url_of(data_dir: Path, role: str) -> str:
    """Return the URL of a role's database in the embedded PostgreSQL."""
    lines = (data_dir / "postgres" / "postmaster.pid").read_text().splitlines()
    return f"postgresql://{role}@/{role}?host={quote(lines[4], safe='')}&port={lines[3]}"


def client_of(stack: Stack) -> httpx.AsyncClient:
    """Return a client of the superadmin, in the workspace main."""
    headers = {"Authorization": f"Bearer {stack.token}"}
    return httpx.AsyncClient(base_url=f"{stack.url}/api/w/main", headers=headers, timeout=PATIENCE_S)


async def crash(url: str) -> None:
    """Have PostgreSQL need room for its log, for which it dies where there is none."""
    connection = await asyncpg.connect(url)
    with contextlib.suppress(*CONNECTION_ERRORS):
        while True:
            await connection.execute("select pg_logical_emit_message(true, '', repeat('x', 1000000)), pg_switch_wal()")
    connection.terminate()


async def test_under_the_cache_of_a_worker(database: Database, stage: Stage, small_cache: Path):
    """A job whose packages find no room fails, and says so; others run, and so does it when there is room."""
    worker = stage.worker(MILLHAND_CACHE_DIR=str(small_cache))
    code, filler = "import six\n\ndef main():\n    return six.__name__\n", small_cache / "filler"
    fill(filler)
    for lock in (None, "six==1.17.0"):  # to be resolved, to be built
        refused, other = new_job(code, raw_lock=lock), new_job("def main():\n    return 1\n")
        await push(database, refused, other)
        row = await ended(database, refused.id)
        assert (row["status"], b"No space left" in row["result"]) == ("failure", True), row["result"]
        assert (await ended(database, other.id))["status"] == "success"
    filler.unlink()
    again = new_job(code, raw_lock=None)
    await push(database, again)
    assert (await ended(database, again.id))["result"] == b'"six"'
    assert worker.alive
