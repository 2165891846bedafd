"""Many callers, one statement: what is asked while one batch is under way goes together as the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Batcher(Generic[Asked, Answer]):
    """Sends the first item at once, and whatever gathers meanwhile in one go.

    `send` answers in the order of its items; an exception among the answers is raised to its caller alone, one raised by
    `send` to all of the batch. Several lanes keep the database busy while another batch commits.
    """

    def __init__(
        self,
        send: Callable[[list[Asked]], Awaitable[Sequence[Answer | Exception]]],
        *,
        max_items: int = 200,
        lanes: int = 2,
    ) -> None:
        self._send = send
        self._max_items = max_items
        self._free_lanes = lanes
        self._waiting: list[tuple[Asked, asyncio.Future[Answer]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, item: Asked) -> Answer:
        """Send an item with others, and return its answer. A caller that gives up does not call its item back."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._free_lanes:
            self._free_lanes -= 1
            task = asyncio.get_running_loop().create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._max_items], self._waiting[self._max_items :]
                await self._answer(batch)
        finally:
            self._free_lanes += 1

    async def _answer(self, batch: list[tuple[Asked, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._send([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to those who wait
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
