"""Python environments, resolved and installed by the real uv from PyPI."""

from __future__ import annotations

import asyncio
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from millhand.core.errors import LockFailedError
from millhand.runtimes.dependencies.interpreters import Interpreters
from millhand.runtimes.dependencies.python import PythonEnvironments, find_uv
from millhand.runtimes.dependencies.tools import tool_env

OURS = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def environments(tmp_path) -> PythonEnvironments:
    """Return environments with a cache of their own."""
    return PythonEnvironments(tmp_path / "cache", python=sys.executable, uv=find_uv())


def run(environment: Path, code: str) -> str:
    """Run code as a zygote's child would: nothing but the standard library and the environment."""
    program = f"import sys; sys.path.append({str(environment)!r}); {code}"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True
    ).stdout.strip()


async def test_from_imports_to_an_environment(environments, log):
    """Imports become a lock, and the lock an environment in which they work."""
    lock = await environments.lock("import six, json\nfrom f.a.b import c", {"f/a/b": "import idna"}, log)
    header, *lines = lock.splitlines()
    assert header == f"# py: {OURS}"
    assert [line.split("==")[0] for line in lines] == ["idna", "six"]
    environment = await environments.environment(lock, log)
    assert run(environment, "import six, idna; print(six.__name__, idna.__name__)") == "six idna"
    assert "resolving idna, six" in log.text
    assert "+ six==" in log.text
    assert environments.interpreter(lock) == sys.executable
    with environments.hold(environment):
        assert await environments.environment(lock, log) == environment


async def test_byte_code_is_ready(environments, log):
    """Byte-code is compiled ahead and never compared with the source: a read-only environment starts at full speed."""
    environment = await environments.environment(f"# py: {OURS}\nsix==1.16.0\n", log)
    [compiled] = environment.glob("__pycache__/six.*.pyc")
    assert struct.unpack("<I", compiled.read_bytes()[4:8])[0] == 0b01  # by hash, unchecked
    assert run(environment, "import six; print(six.add_metaclass.__code__.co_filename)") == str(environment / "six.py")


async def test_packages_are_not_copied(environments, log):
    """Files are hard links to uv's cache: two environments with the same package hold it once."""
    first = await environments.environment(f"# py: {OURS}\nsix==1.16.0\n", log)
    second = await environments.environment(f"# py: {OURS}\nsix==1.16.0\nidna==3.10\n", log)
    assert first != second
    assert (first / "six.py").stat().st_ino == (second / "six.py").stat().st_ino


async def test_nothing_needed(environments, log):
    """Code that needs nothing has an empty lock, and that needs no environment."""
    assert await environments.lock("import os\ndef main(): ...", {}, log) == ""
    assert await environments.environment("", log) is None
    assert environments.interpreter("") == sys.executable
    assert log.text == ""


async def test_same_question_same_answer(environments, log):
    """Within minutes the same requirements give the same lock without asking again, unless the script wants it fresh."""
    first = await environments.lock("import six", {}, log)
    log.text = ""
    assert await environments.lock("import six # other code", {}, log) == first
    assert log.text == ""
    assert await environments.lock("# no_cache\nimport six", {}, log) == first
    assert "resolving six" in log.text


async def test_what_cannot_be_resolved(environments, log):
    """A requirement that can't be met fails with the resolver's words, and with where it came from."""
    with pytest.raises(LockFailedError, match=r"(?s)six==99.*unsatisfiable"):
        await environments.lock("# requirements:\n# six==99\n", {}, log)
    assert "six==99" in log.text
    with pytest.raises(LockFailedError, match="Inferred from imports: millhand-no-such-thing"):
        await environments.lock("import millhand_no_such_thing", {}, log)


async def test_what_cannot_be_installed(environments, log, tmp_path):
    """A lock that can't be installed fails, leaves nothing, and can be tried again."""
    for _ in range(2):
        with pytest.raises(LockFailedError, match="installing dependencies failed"):
            await environments.environment(f"# py: {OURS}\nsix==99\n", log)
    assert [item for item in (tmp_path / "cache/python").rglob("*") if item.name != ".state"] == []


async def test_packages_without_wheels(environments, log, tmp_path):
    """Code of packages is run at install only where the operator allows it."""
    with pytest.raises(LockFailedError, match="MILLHAND_ALLOW_BUILDS=1"):
        await environments.lock("# requirements:\n# docopt==0.6.2\n", {}, log)


async def test_a_python_that_is_not_there(environments, log):
    """The message names the Pythons that are there."""
    with pytest.raises(LockFailedError, match=rf"no Python ==3.7.\* on this worker; it has .*{OURS}"):
        await environments.environment("# py: 3.7\nsix==1.16.0\n", log)
    with pytest.raises(LockFailedError, match=r"no Python >=4"):
        await environments.lock("# py: >=4\n", {}, log)


async def test_another_python(log, tmp_path):
    """A script that asks for another Python gets its interpreter, and packages for it."""
    interpreters = Interpreters(default=sys.executable, uv=find_uv(), env=tool_env({"PATH": _path()}))
    try:
        version, path = await interpreters.choose(f"!={OURS}.*,>=3.8")
    except LockFailedError:
        pytest.skip("there is only one Python here")
    assert version != OURS
    assert interpreters.path(version) == path
    assert interpreters.path(None) == sys.executable
    environments = PythonEnvironments(tmp_path / "cache", python=path, uv=find_uv())
    assert await environments.lock("import os", {}, log) == ""
    environment = await environments.environment(await environments.lock("import six", {}, log), log)
    assert environment.name.startswith(f"cp{version.replace('.', '')}-")


def _path() -> str:
    versions = sorted(Path.home().glob(".pyenv/versions/3.*/bin"))
    return ":".join(map(str, [*versions, "/usr/local/bin", "/usr/bin", "/bin"]))


async def test_wishes_of_scripts_are_no_options(environments, log):
    """No script gets the resolver to read a file of the worker."""
    with pytest.raises(LockFailedError, match="not a requirement"):
        await environments.lock("# requirements:\n# -r /etc/passwd\n", {}, log)
    with pytest.raises(LockFailedError, match="not a requirement"):
        await environments.environment("-r /etc/passwd\n", log)
    assert "root:" not in log.text


async def test_concurrent_requests(environments, log):
    """Many jobs that need the same new environment at once cause one resolution and one installation."""
    locks = await asyncio.gather(*(environments.lock("import six", {}, log) for _ in range(5)))
    assert len(set(locks)) == 1
    found = await asyncio.gather(*(environments.environment(locks[0], log) for _ in range(5)))
    assert len(set(found)) == 1
    assert (log.text.count("resolving"), log.text.count("installing")) == (1, 1)
