"""Modules for Go, from a proxy made of files."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from millhand.core.errors import LockFailedError
from millhand.runtimes.dependencies.go import MODULE_CACHE, SEPARATOR, GoModules

CODE = 'package inner\nimport "example.com/hello"\nfunc Main() (string, error) { return hello.Say(), nil }\n'


@pytest.fixture
def proxy(tmp_path) -> dict[str, str]:
    """Make a module proxy that has one module, and return the settings that lead to it."""
    versions = tmp_path / "proxy/example.com/hello/@v"
    versions.mkdir(parents=True)
    (versions / "list").write_text("v1.0.0\n")
    (versions / "v1.0.0.info").write_text('{"Version":"v1.0.0","Time":"2020-01-01T00:00:00Z"}')
    (versions / "v1.0.0.mod").write_text("module example.com/hello\n")
    with zipfile.ZipFile(versions / "v1.0.0.zip", "w") as archive:
        archive.writestr("example.com/hello@v1.0.0/go.mod", "module example.com/hello\n")
        archive.writestr("example.com/hello@v1.0.0/hello.go", 'package hello\n\nfunc Say() string { return "hi" }\n')
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "GOPROXY": f"{(tmp_path / 'proxy').as_uri()},direct",
        "GOSUMDB": "off",
    }


async def test_from_imports_to_modules(go, proxy, log, tmp_path):
    """Imports become a lock, and the lock a module cache against which the script compiles without a proxy."""
    modules = GoModules(tmp_path / "cache", go=go, env=proxy)
    lock = await modules.lock(CODE, {}, log)
    assert "require example.com/hello v1.0.0" in lock.split(SEPARATOR)[0]
    assert "example.com/hello v1.0.0 h1:" in lock.split(SEPARATOR)[1]
    environment = await modules.environment(lock, log)
    assert await modules.environment(lock, log) == environment
    _write(tmp_path / "job", environment)
    env = {
        **proxy,
        "GOMODCACHE": str(environment / MODULE_CACHE),
        "GOPROXY": "off",
        "GOFLAGS": "-mod=mod",
        "GOCACHE": str(tmp_path / "gc"),
    }
    subprocess.run([go, "build", "."], cwd=tmp_path / "job", env=env, check=True)


def _write(folder: Path, environment: Path) -> None:
    folder.mkdir()
    for name in ("go.mod", "go.sum"):
        (folder / name).write_text((environment / name).read_text())
    (folder / "inner.go").write_text(CODE)


async def test_standard_library(go, log, tmp_path):
    """The standard library needs no lock, no modules and no network."""
    modules = GoModules(tmp_path / "cache", go=go, env={"PATH": os.environ["PATH"]})
    assert await modules.lock('package inner\nimport ("fmt"; "net/http")\nfunc main() {}\n', {}, log) == ""
    assert await modules.environment("", log) is None
    assert await modules.environment(f"module mymod\n{SEPARATOR}", log) is None


async def test_no_proxy(go, log, tmp_path):
    """Without a proxy, modules are refused with the setting that would help; `direct` is not one."""
    modules = GoModules(tmp_path / "cache", go=go, env={"PATH": os.environ["PATH"], "GOPROXY": "direct"})
    with pytest.raises(LockFailedError, match="set GOPROXY"):
        await modules.lock(CODE, {}, log)
    with pytest.raises(LockFailedError, match="set GOPROXY"):
        await modules.environment(f"module mymod\nrequire example.com/hello v1.0.0\n{SEPARATOR}", log)


async def test_what_cannot_be_resolved(go, proxy, log, tmp_path):
    """A module that isn't there fails with go's words."""
    modules = GoModules(tmp_path / "cache", go=go, env=proxy)
    with pytest.raises(LockFailedError, match=r"example.com/nothing"):
        await modules.lock('package inner\nimport "example.com/nothing"\n', {}, log)


@pytest.mark.parametrize(
    "line",
    ["replace example.com/hello => ../../etc", "replace (\n\texample.com/hello => /etc\n)", "replace a => b v1.0.0"],
)
async def test_locks_that_replace_modules(go, proxy, log, tmp_path, line):
    """A lock that somebody sent can't bring files of the worker into a build."""
    with pytest.raises(LockFailedError, match="replaces a module"):
        await GoModules(tmp_path / "cache", go=go, env=proxy).environment(f"module mymod\n{line}\n{SEPARATOR}", log)
