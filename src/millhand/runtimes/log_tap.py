"""A child's output on its way to the job's log."""

from __future__ import annotations

from collections import deque

from millhand.runtimes.contract import Listener

STREAM_MARK = "WM_STREAM: "


class Tail:
    """The end of a text that grows."""

    def __init__(self, limit: int) -> None:
        """Keep at least the last `limit` characters, and at most one piece more."""
        self._limit = limit
        self._pieces: deque[str] = deque()
        self._size = 0

    def add(self, text: str) -> None:
        """Append a piece."""
        self._pieces.append(text)
        self._size += len(text)
        while self._size - len(self._pieces[0]) >= self._limit:
            self._size -= len(self._pieces.popleft())

    def text(self) -> str:
        """Return the last `limit` characters."""
        return "".join(self._pieces)[-self._limit :]


class LogTap:
    """Passes output on to the listener, remembers its end, and takes the result stream out of it.

    A line that starts with `WM_STREAM: ` is no log: clients of every language write the pieces of a result stream so.
    A piece without such a line, nearly every one, passes through as it came.
    """

    def __init__(self, listener: Listener, *, tail_chars: int) -> None:
        """Listen for one run."""
        self.tail = Tail(tail_chars)
        self._listener = listener
        self._held = ""  # the start of a line that is, or may become, one of the result stream
        self._at_line_start = True

    def feed(self, text: str) -> None:
        """Take a piece of output."""
        text, self._held = self._held + text, ""
        if STREAM_MARK in text:
            for line in text.split("\n")[:-1]:
                self._line(line + "\n")
            text = text[text.rfind("\n") + 1 :]
        start = text.rfind("\n") + 1
        if self._may_be_stream(text, start):
            text, self._held = text[:start], text[start:]
        self._log(text)

    def finish(self) -> None:
        """Take the end of the output."""
        self._line(self._held)
        self._held = ""

    def _line(self, line: str) -> None:
        if self._at_line_start and line.startswith(STREAM_MARK):
            self._listener.stream(line[len(STREAM_MARK) :].rstrip("\n").replace("\\n", "\n"))
        else:
            self._log(line)

    def _may_be_stream(self, text: str, start: int) -> bool:
        begins_line = start > 0 or self._at_line_start
        last = text[start : start + len(STREAM_MARK)]
        return begins_line and last != "" and STREAM_MARK.startswith(last)

    def _log(self, text: str) -> None:
        if text:
            self._at_line_start = text.endswith("\n")
            self.tail.add(text)
            self._listener.log(text)
