"""All languages of one worker host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from millhand.core.errors import RuntimeUnavailableError
from millhand.core.script import Language
from millhand.runtimes import binaries
from millhand.runtimes.contract import Isolation
from millhand.runtimes.registry import Runtimes
from tests.support import runs


@pytest.fixture
async def runtimes(tmp_path):
    """Return runtimes that are started, with a cache of their own."""
    runtimes = Runtimes(cache_dir=tmp_path / "cache")
    await runtimes.start()
    yield runtimes
    await runtimes.close()


async def test_a_missing_program_is_told_when_its_job_comes(runtimes, monkeypatch):
    """A host starts without a language's program; asked for the language it says how to install it."""
    for find in ("find_bun", "find_deno", "find_go"):
        monkeypatch.setattr(binaries, find, lambda: None)
    for language, extra in (
        (Language.BUN, "bun"),
        (Language.NATIVETS, "bun"),
        (Language.DENO, "deno"),
        (Language.GO, "go"),
    ):
        with pytest.raises(RuntimeUnavailableError, match=rf"millhand\[{extra}\]"):
            runtimes.get(language)


async def test_python_and_bash_share_their_children(runtimes):
    """The languages that need no more than the system work from the start."""
    ran = await runs.run(runtimes.get(Language.BASH), Language.BASH, "echo hi")
    assert ran.result == "hi"
    ran = await runs.run(runtimes.get(Language.PYTHON3), Language.PYTHON3, "def main(a: int):\n    return a", {"a": 1})
    assert ran.result == 1


async def test_the_isolation_is_told(tmp_path):
    """The text for pings and logs says what jobs are kept apart by."""
    runtimes = Runtimes(cache_dir=tmp_path, isolation=Isolation.NONE)
    await runtimes.start()
    assert runtimes.isolation_text == "none"
    await runtimes.close()


async def test_nothing_is_left_behind(tmp_path):
    """A closed host has no process and no folder left but its cache."""
    runtimes = Runtimes(cache_dir=tmp_path)
    await runtimes.start()
    await runs.run(runtimes.get(Language.BASH), Language.BASH, "echo hi")
    scratch = runtimes._scratch
    assert scratch.is_dir()
    await runtimes.close()
    assert not scratch.exists()
    assert not _children_of(os.getpid(), "zygote.py")


async def test_a_job_cannot_list_what_other_scripts_left_in_the_cache(runtimes):
    """Folders of the cache that jobs read can't be listed by them: they name only what their own code leads to."""
    if os.geteuid() != 0:
        pytest.skip("jobs run as this user: nothing can be kept from listing")
    folder = runtimes._cache_dir / "go-binaries"
    ran = await runs.run(runtimes.get(Language.BASH), Language.BASH, f"test -d {folder}; ls {folder} || echo refused")
    assert ran.result == "refused"


def _children_of(parent: int, word: str) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            is_child = f"\nPPid:\t{parent}\n" in status.read_text()
            if is_child and word in (status.parent / "cmdline").read_text():
                found.append(int(status.parent.name))
        except OSError:
            continue
    return found
