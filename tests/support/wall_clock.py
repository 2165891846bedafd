"""The wall clock of a process, set while it runs, as an administrator or a time server sets a machine's.

Done by libfaketime (a Debian package, see `.ci/packages.txt`), which the process loads at its start. Its monotonic clock
goes on undisturbed, as the kernel's does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_PLACES = ("/usr/lib/*/faketime", "/usr/lib*/faketime", "/usr/local/lib/faketime", "/usr/lib*")
_NAME = "libfaketimeMT.so.1"  # the one for programs with threads


def library() -> Path | None:
    """Return libfaketime where it is installed."""
    if not sys.platform.startswith("linux"):
        return None
    return next((found for place in _PLACES for found in Path("/").glob(f"{place[1:]}/{_NAME}")), None)


class WallClock:
    """How far the wall clock of the processes started with `env` is off, in seconds."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.jump(0)

    def jump(self, off_s: float) -> None:
        """Set the clock to the true time and so many seconds; all processes see it with their next look at the clock."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{off_s:+.0f}\n")
        new.chmod(0o644)
        os.replace(new, self._file)  # noqa: PTH105 - whole, or not at all: it is read at every look at the clock

    @property
    def env(self) -> dict[str, str]:
        """Return what a process needs in its environment to go by this clock."""
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
