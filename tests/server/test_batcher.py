"""Many callers, one statement."""

from __future__ import annotations

import asyncio

import pytest

from millhand.server.batcher import Batcher


async def test_what_gathers_goes_together():
    """The first item goes at once; those that come meanwhile go as one batch, and all get their own answer."""
    batches, go = [], asyncio.Event()

    async def send(items):
        batches.append(items)
        await go.wait()
        return [item * 10 for item in items]

    batcher = Batcher(send, lanes=1)
    asked = [asyncio.create_task(batcher.ask(n)) for n in range(5)]
    await asyncio.sleep(0)
    go.set()

    assert await asyncio.gather(*asked) == [0, 10, 20, 30, 40]
    assert [item for batch in batches for item in batch] == [0, 1, 2, 3, 4]
    assert len(batches) <= 2


async def test_errors_reach_those_they_belong_to():
    """An exception among the answers is its caller's; one that is raised is everybody's; the batcher goes on."""

    async def send(items):
        if "all" in items:
            raise OSError("down")
        return [ValueError(item) if item == "bad" else item for item in items]

    batcher = Batcher(send)
    answers = await asyncio.gather(*map(batcher.ask, ["a", "bad", "b"]), return_exceptions=True)
    assert [type(answer) for answer in answers] == [str, ValueError, str]
    with pytest.raises(OSError, match="down"):
        await batcher.ask("all")
    assert await batcher.ask("again") == "again"


async def test_batches_have_a_size():
    """No batch is larger than allowed."""
    sizes = []

    async def send(items):
        sizes.append(len(items))
        await asyncio.sleep(0)
        return items

    batcher = Batcher(send, max_items=3, lanes=2)
    await asyncio.gather(*map(batcher.ask, range(20)))

    assert max(sizes) <= 3


async def test_a_caller_that_gives_up_disturbs_nobody():
    """A canceled caller's item is still sent, and the others get their answers."""
    go = asyncio.Event()

    async def send(items):
        await go.wait()
        return items

    batcher = Batcher(send, lanes=1)
    first, second = asyncio.create_task(batcher.ask(1)), asyncio.create_task(batcher.ask(2))
    await asyncio.sleep(0)
    first.cancel()
    go.set()

    assert await second == 2
