"""The framed protocol between a worker and a process that runs jobs.

It flows over descriptors of its own (3: to the child, 4: from the child), never over stdout. A frame is a little-endian
unsigned 32-bit length of what follows, one byte of kind, and the payload. Single-use and dedicated processes speak the same.
"""

from __future__ import annotations

import enum
import struct

HEADER = struct.Struct("<IB")
MAX_FRAME = 512 * 1024 * 1024


class Frame(enum.IntEnum):
    """Kind of a frame, written as one ASCII letter."""

    SPAWN = ord("B")  # to the child, before all else: what to become (see children/child.py)
    JOB = ord("J")  # to the child: run this; JSON, for Python with more before it (see python_child.py)
    END = ord("E")  # to the child: no more jobs
    FAILED = ord("F")  # it could not become what it was asked to; UTF-8 text
    READY = ord("R")  # the child waits for its job
    STARTED = ord("S")  # the user's code is about to be called
    COMPILED = ord("K")  # byte-code of the job's script, where it was asked for; before anything of it has run
    STREAM = ord("C")  # a piece of the result stream, UTF-8 text
    PROGRESS = ord("P")  # decimal digits, 0 to 100
    PEAK = ord("M")  # decimal digits: the most memory the process has used, in kB; comes before VALUE or ERROR
    VALUE = ord("V")  # the result, JSON
    ERROR = ord("X")  # JSON object {name, message, stack, …}


class ProtocolError(Exception):
    """The child sent something that is not a frame."""


def encode(kind: Frame, payload: bytes = b"") -> bytes:
    """Return the bytes of one frame."""
    return HEADER.pack(len(payload) + 1, kind) + payload


class Decoder:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[Frame, bytes]]:
        """Take bytes, return the frames that are now whole; raises ProtocolError."""
        self._buffer += data
        frames = []
        start = 0
        while len(self._buffer) - start >= HEADER.size:
            length, letter = HEADER.unpack_from(self._buffer, start)
            kind = _KINDS.get(letter)
            if not 1 <= length <= MAX_FRAME or kind is None:
                raise ProtocolError(f"not a frame: length {length}, kind {letter}")
            end = start + HEADER.size - 1 + length
            if len(self._buffer) < end:
                break
            frames.append((kind, bytes(self._buffer[start + HEADER.size : end])))
            start = end
        del self._buffer[:start]
        return frames

    def close(self) -> None:
        """Say that no more bytes come; raises ProtocolError in the middle of a frame."""
        if self._buffer:
            raise ProtocolError(f"the channel was closed within a frame, after {len(self._buffer)} bytes of it")


_KINDS = {int(kind): kind for kind in Frame}
