"""Servers killed while they move large logs to object storage: every log is whole, every object has its row."""

from __future__ import annotations

from pathlib import Path

import pytest

from millhand.core.ids import new_id
from millhand.core.job import LogChunk
from millhand.core.spill import STEP_UNITS
from millhand.store import log_objects, logs
from millhand.store.objects import open_store
from millhand.store.pool import Database
from tests.support.object_storage import files
from tests.system.stage import Stage, free_port, until

pytestmark = pytest.mark.system


async def test_killed_while_it_spills(database: Database, stage: Stage, tmp_path: Path):
    """After kill -9, again and again, the next server goes on; no line is lost or doubled, no object is unknown."""
    folder = tmp_path / "objects"
    url = f"file://{folder}"
    texts = {new_id(): f"{i} é😀\n" * (STEP_UNITS // 5) for i in range(8)}
    for job_id, text in texts.items():
        for _ in range(5):
            await logs.append(database, [LogChunk(job_id=job_id, text=text)])

    for n_files in (1, 4):
        server = stage.server(free_port(), MILLHAND_OBJECT_STORE=url)
        await until(lambda n=n_files: len(moved(folder)) >= n)
        server.kill()
    stage.server(free_port(), MILLHAND_OBJECT_STORE=url)
    await until(lambda: nothing_left(database))

    objects = open_store(url, {})
    for job_id, text in texts.items():
        assert (await logs.read(database, job_id, objects=objects))[0] == text * 5
    known = {row["key"] for row in await database.fetch("select key from log_object")}
    assert {name.partition("#")[0] for name in moved(folder)} <= known


def moved(folder: Path) -> list[str]:
    return [name for name in files(folder) if name.startswith("logs/")]


async def nothing_left(database: Database) -> bool:
    return not await log_objects.borders(database, limit=1)
