"""Packages for Deno, resolved and downloaded by the real deno."""

from __future__ import annotations

import os
import subprocess

import pytest

from millhand.core.errors import LockFailedError
from millhand.runtimes.dependencies.deno import DenoEnvironments

CODE = 'import isNumber from "npm:is-number@7";\nimport "node:fs";\nconsole.log(isNumber(3));\n'


@pytest.fixture
def environments(tmp_path, deno) -> DenoEnvironments:
    """Return environments with a cache of their own."""
    return DenoEnvironments(tmp_path / "cache", deno=deno)


async def test_from_imports_to_an_environment(environments, deno, log, tmp_path):
    """Imports become a lock, and the lock a folder with which they run without the network."""
    lock = await environments.lock(CODE, {"f/a/b": 'import "npm:ms@2.1.3"'}, log)
    assert "npm:ms@2.1.3" in lock
    environment = await environments.environment(lock, log)
    assert await environments.environment(lock, log) == environment
    (tmp_path / "main.ts").write_text(CODE)
    flags = [
        "-A",
        "--no-config",
        "--node-modules-dir=none",
        "--cached-only",
        "--frozen",
        f"--lock={environment}/deno.lock",
    ]
    env = {
        "PATH": os.environ["PATH"],
        "DENO_DIR": str(environment),
        "NO_COLOR": "1",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    done = subprocess.run(
        [deno, "run", *flags, str(tmp_path / "main.ts")], capture_output=True, text=True, check=True, env=env
    )
    assert done.stdout == "true\n"


async def test_nothing_needed(environments, log):
    """Code that needs nothing has an empty lock, and that needs no environment."""
    assert await environments.lock('import "node:fs"; import "./x.ts"', {}, log) == ""
    assert await environments.environment("", log) is None
    assert await environments.environment('{"version":"5"}', log) is None


async def test_what_cannot_be_resolved(environments, log):
    """A package that isn't there fails with deno's words."""
    with pytest.raises(LockFailedError, match=r"is-number.*99.9.9"):
        await environments.lock('import "npm:is-number@99.9.9"', {}, log)


@pytest.mark.parametrize(
    "lock", ["nonsense", '{"specifiers":{"file:///etc/passwd":"1"}}', '{"remote":{"file:///x.ts":"a"}}']
)
async def test_locks_that_are_refused(environments, log, lock):
    """A lock that somebody sent can't name files of the worker."""
    with pytest.raises(LockFailedError):
        await environments.environment(lock, log)
