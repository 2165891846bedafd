"""npm packages, resolved and installed by the real bun."""

from __future__ import annotations

import os
import subprocess

import pytest

from millhand.core.errors import LockFailedError
from millhand.runtimes.dependencies.bun import SEPARATOR, BunEnvironments, plain_imports

CODE = 'import isNumber from "npm:is-number@7.0.0";\nimport fs from "node:fs";\nconsole.log(isNumber(3), typeof fs.readFileSync);\n'


@pytest.fixture
def environments(tmp_path, bun) -> BunEnvironments:
    """Return environments with a cache of their own."""
    return BunEnvironments(tmp_path / "cache", bun=bun)


async def test_from_imports_to_an_environment(environments, bun, log, tmp_path):
    """Imports become a lock, and the lock a folder of modules from which they are imported."""
    lock = await environments.lock(CODE, {"f/a/b": 'import "ms@2.1.3"'}, log)
    assert SEPARATOR in lock
    environment = await environments.environment(lock, log)
    assert sorted(item.name for item in (environment / "node_modules").iterdir() if item.name[0] != ".") == [
        "is-number",
        "ms",
    ]
    assert await environments.environment(lock, log) == environment
    (tmp_path / "job").mkdir()
    (tmp_path / "job/main.ts").write_text(plain_imports(CODE))
    (tmp_path / "job/node_modules").symlink_to(environment / "node_modules")
    argv = [bun, "run", "--no-install", "main.ts"]
    done = subprocess.run(
        argv, cwd=tmp_path / "job", capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]}
    )
    assert done.stdout == "true function\n"


async def test_nothing_needed(environments, log):
    """Code that needs nothing has an empty lock, and that needs no environment."""
    assert await environments.lock('import fs from "fs"; import "./x"', {}, log) == ""
    assert await environments.environment("", log) is None
    assert await environments.environment('{"dependencies":{}}\n//bun.lock\n<empty>', log) is None


async def test_what_cannot_be_resolved(environments, log):
    """A package that isn't there fails with bun's words."""
    with pytest.raises(LockFailedError, match=r'No version matching "99\.9\.9"'):
        await environments.lock('import "is-number@99.9.9"', {}, log)
    assert "99.9.9" in log.text


async def test_locks_that_do_not_fit(environments, log, tmp_path):
    """A lock whose halves contradict each other is not installed, and leaves nothing."""
    lock = await environments.lock(CODE, {}, log)
    with pytest.raises(LockFailedError, match="installing dependencies failed"):
        await environments.environment(lock.replace('"is-number": "7.0.0"', '"is-number": "6.0.0"', 1), log)
    assert [item for item in (tmp_path / "cache/bun").rglob("*") if item.name != ".state"] == []


@pytest.mark.parametrize(
    "lock",
    [
        '{"dependencies":{"x":"file:/etc"}}\n//bun.lock\n{}',
        '{"dependencies":{"x":"1"}}\n//bun.lock\n{"packages":{"x":["x@file:../../etc",{}]}}',
        '{"dependencies":{"x":"link:y"}}\n//bun.lock\n{}',
        "nonsense\n//bun.lock\n{}",
    ],
)
async def test_locks_that_name_files(environments, log, lock):
    """A lock that somebody sent can't bring files of the worker into an environment."""
    with pytest.raises(LockFailedError):
        await environments.environment(lock, log)
