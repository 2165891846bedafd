"""A child's output as text."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Callable

CHUNK = 1 << 16  # bytes read at once, and the longest unfinished line that waits for its end
_TAIL_S = 0.1  # how long it waits
_Decoder = codecs.getincrementaldecoder("utf-8")


class LogText:
    """Makes text of log bytes: split characters are put together, bad ones replaced, NULs dropped, lines kept whole for a moment."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Hand pieces of text to `say`."""
        self._say = say
        self._decoder = _Decoder("replace")
        self._tail = ""
        self._timer: asyncio.TimerHandle | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes."""
        text = self._tail + self._decoder.decode(data).replace("\0", "")
        whole, newline, self._tail = text.rpartition("\n")
        if newline:
            self._say(whole + newline)
        if self._tail and len(self._tail) > CHUNK:
            self.flush()
        elif self._tail and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TAIL_S, self.flush)

    def end(self) -> None:
        """Take the end: what is left is said as it is."""
        self._tail += self._decoder.decode(b"", final=True)
        self.flush()

    def flush(self) -> None:
        """Say what waits for the end of its line."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._tail:
            self._say(self._tail)
            self._tail = ""
