"""The line between `millhand up` and its parts: a part says that it is ready, and learns that `up` is gone.

A socket pair. The part writes one byte when it serves. It reads the end of the stream when `up` has ended, also by
`kill -9`: then it must not live on, for the next `up` will start another.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, MutableMapping

_VARIABLE = "MILLHAND_LIFELINE_FD"
_READY = b"R"


class Lifeline:
    """The part's end; without a parent that holds the other end it does nothing."""

    def __init__(self, end: socket.socket | None) -> None:
        self._end = end

    @classmethod
    def of_environment(cls, environment: MutableMapping[str, str]) -> Lifeline:
        """Take the line that `up` gave us, so that no process we start sees it."""
        number = environment.pop(_VARIABLE, None)
        if number is None:
            return cls(None)
        end = socket.socket(fileno=int(number))
        os.set_inheritable(end.fileno(), False)
        end.setblocking(False)
        return cls(end)

    def ready(self) -> None:
        """Say that this part serves."""
        if self._end is not None:
            self._end.send(_READY)

    def on_parent_gone(self, callback: Callable[[], None]) -> None:
        """Call back, on the running event loop, once, when `up` has ended."""
        if self._end is None:
            return
        loop = asyncio.get_running_loop()
        end = self._end

        def readable() -> None:
            if not end.recv(1):
                loop.remove_reader(end)
                callback()

        loop.add_reader(end, readable)


class ParentEnd:
    """What `up` holds of the line to one start of one part."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self.descriptor = self._theirs.fileno()
        self.environment = {_VARIABLE: str(self.descriptor)}

    def started(self) -> None:
        """Leave their end to the part alone, so that its end is heard."""
        self._theirs.close()

    async def wait_ready(self) -> bool:
        """Wait until the part is ready; False where it ended first."""
        return bool(await asyncio.get_running_loop().sock_recv(self._ours, 1))

    def close(self) -> None:
        """Cut the line."""
        self._ours.close()
        self._theirs.close()
