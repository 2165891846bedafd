"""Children that wait for their job."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from millhand.runtimes import pool as pool_module
from millhand.runtimes.contract import Limits
from millhand.runtimes.launcher import Launcher
from millhand.runtimes.pool import WarmPool, _Shelf
from millhand.runtimes.python import python_spawn


@pytest.fixture
async def launcher(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Launcher]:
    """Return a running launcher."""
    import sys

    launcher = Launcher(python=sys.executable, scratch=Path(tmp_path_factory.mktemp("scratch")))
    await launcher.start()
    yield launcher
    await launcher.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def shelf(pool: WarmPool) -> _Shelf:
    return next(iter(pool._shelves.values()))


async def test_a_waiting_child_is_taken_once(launcher):
    """Each child is given out once, and another takes its place."""
    pool = WarmPool(launcher, python_spawn, idle=2, most=2)
    await pool.start()
    await until(lambda: len(shelf(pool)._waiting) == 2)
    waiting = list(shelf(pool)._waiting)
    taken = [await pool.take(), await pool.take(), await pool.take()]
    assert taken[:2] == waiting
    assert len({child.id for child in taken}) == 3
    await until(lambda: len(shelf(pool)._waiting) == 2)
    await pool.close()


async def test_rehearsals_where_there_is_time(launcher, monkeypatch):
    """Children rehearse while jobs come one by one; while they come quickly that would take time from them."""
    rehearsed = []
    spawn = launcher.spawn

    async def note(what):
        rehearsed.append(what.rehearse)
        return await spawn(what)

    monkeypatch.setattr(launcher, "spawn", note)
    pool = WarmPool(launcher, python_spawn, idle=1, most=1)
    for _ in range(3):
        await pool.take()
        shelf(pool)._taken_at -= 60
    assert all(rehearsed)
    for _ in range(40):
        shelf(pool)._taken_at = asyncio.get_running_loop().time()
        await pool.take()
    assert not rehearsed[-1]
    await pool.close()


async def test_more_wait_while_they_are_asked_for(launcher, monkeypatch):
    """A pool that was found empty keeps more, up to its bound, and fewer after a calm time."""
    pool = WarmPool(launcher, python_spawn, idle=1, most=4)
    for _ in range(5):
        await pool.take()
    await until(lambda: len(shelf(pool)._waiting) == 4)
    shelf(pool)._lowest = 4
    shelf(pool)._look()
    assert len(shelf(pool)._waiting) == 2
    await pool.close()


async def test_a_dead_child_is_not_given_out(launcher):
    """Children that died while they waited are passed over: the launcher's end is the end of all of them."""
    pool = WarmPool(launcher, python_spawn, idle=2, most=2)
    await pool.start()
    await until(lambda: len(shelf(pool)._waiting) == 2)
    dead = list(shelf(pool)._waiting)
    os.kill(launcher._zygote._process.pid, signal.SIGKILL)
    await until(lambda: not any(child.alive for child in dead))
    child = await pool.take()
    assert child not in dead
    assert child.alive
    await pool.close()


async def test_each_kind_of_limits_has_its_own(launcher, monkeypatch):
    """Children wait per limits; the kind that was longest unused makes room."""
    monkeypatch.setattr(pool_module, "_MAX_SHELVES", 2)
    pool = WarmPool(launcher, python_spawn, idle=1, most=1)
    kinds = [Limits(open_files=n) for n in (100, 200, 300)]
    for kind in kinds:
        await pool.take(kind)
    assert list(pool._shelves) == kinds[1:]
    await pool.close()


async def test_closing_leaves_nobody(launcher):
    """After the end of a pool no child waits."""
    pool = WarmPool(launcher, python_spawn, idle=3, most=3)
    await pool.start()
    await until(lambda: len(shelf(pool)._waiting) == 3)
    waiting = list(shelf(pool)._waiting)
    await pool.close()
    assert [(await child.ended()).code for child in waiting] == [0, 0, 0]
